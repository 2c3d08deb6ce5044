import { DomainError, newId } from '@banyan/kernel';
import { eventually, testDatabase } from '@banyan/testing';
import { afterEach, beforeAll, expect, it } from 'vitest';
import type { CallOptions } from './handlers.js';
import { type Placement, allLocal } from './placement.js';
import { type SagaStep, done, wait } from './saga.js';
import { type ToyHooks, createToyTables, startToy } from './toy.spec-support.js';

type Data = Record<string, unknown>;
const test = testDatabase({ contexts: ['inventory', 'orders'] });
beforeAll(() => createToyTables(test));

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});
const start = async (hooks: ToyHooks) => {
  const toy = await startToy(test, hooks);
  closing.push(toy.close);
  return toy;
};
const row = async (id: string) =>
  (
    await test.admin<{ state: string; data: Data; reason: string | null }>(
      'select state, data, reason from orders.saga where id = $1',
      [id],
    )
  )[0];
const reaches = (id: string, state: string, timeoutMs = 20_000) =>
  eventually(async () => expect((await row(id))?.state).toBe(state), { timeoutMs });

/** Steps that write down what was done, in order; `override` changes one of them. */
function recorded(override: Record<string, Partial<SagaStep<Data>>> = {}) {
  const log: string[] = [];
  const steps = ['one', 'two', 'three'].map((name): SagaStep<Data> => ({
    name,
    // Longer than any spec.
    withinMs: 300_000,
    run: async () => {
      log.push(name);
      return done({ [name]: true });
    },
    compensate: async () => void log.push(`undo ${name}`),
    ...override[name],
  }));
  return { log, steps };
}

it('runs every step and keeps what each found out', async () => {
  const { log, steps } = recorded();
  const toy = await start({ steps });
  const id = newId();
  await toy.listening.begin({ id });
  await reaches(id, 'completed');
  expect(log).toEqual(['one', 'two', 'three']);
  expect((await row(id))?.data).toEqual({ id, one: true, two: true, three: true });
});

it('a refusal undoes what was done, newest first, the refused step included', async () => {
  const reasons: string[] = [];
  const { log, steps } = recorded({
    three: {
      run: async () => {
        throw new DomainError('NO', 'conflict', 'no');
      },
    },
  });
  const toy = await start({ steps, compensated: (reason) => reasons.push(reason) });
  const id = newId();
  await toy.listening.begin({ id });
  await reaches(id, 'compensated');
  expect(log).toEqual(['one', 'two', 'undo three', 'undo two', 'undo one']);
  expect(reasons).toEqual(['NO']);
});

it('a step that cannot be done just now is tried again with the same key', async () => {
  const keys: unknown[] = [];
  const { log, steps } = recorded({
    two: {
      run: async (_data, call) => {
        keys.push(call.idempotencyKey);
        if (keys.length < 3) throw new DomainError('BUSY', 'unavailable', 'busy');
        return done();
      },
    },
  });
  const toy = await start({ steps });
  const id = newId();
  await toy.listening.begin({ id });
  await reaches(id, 'completed');
  expect(keys).toEqual([1, 2, 3].map(() => `orders.toy:${id}:two`));
  expect(log).toEqual(['one', 'three']);
});

it('a step past its deadline is undone with all before it', async () => {
  const { log, steps } = recorded({ two: { withinMs: 150, run: async () => wait() } });
  const toy = await start({ steps });
  const id = newId();
  await toy.listening.begin({ id });
  await reaches(id, 'compensated');
  expect(log).toEqual(['one', 'undo two', 'undo one']);
  expect((await row(id))?.reason).toBe('TIMEOUT');
});

it('a signal moves a waiting step on, or refuses it', async () => {
  const { log, steps } = recorded({ two: { run: async () => wait({ asked: true }) } });
  const toy = await start({ steps });
  const [yes, no] = [newId(), newId()];
  for (const id of [yes, no]) {
    await toy.listening.begin({ id });
    await reaches(id, 'two:waiting');
    await toy.listening.tell({ id, step: 'two', ok: id === yes });
    await reaches(id, id === yes ? 'completed' : 'compensated');
  }
  expect((await row(yes))?.data).toMatchObject({ asked: true, told: true, three: true });
  expect((await row(no))?.reason).toBe('TOLD_NO');
  expect(log).toEqual(['one', 'three', 'one', 'undo two', 'undo one']);
});

it('a signal that comes before the step waits is not lost', async () => {
  let letGo!: () => void;
  const asked = new Promise<void>((resolve) => (letGo = resolve));
  let asking = false;
  const { steps } = recorded({ two: { run: () => ((asking = true), asked.then(() => wait())) } });
  const toy = await start({ steps });
  const id = newId();
  await toy.listening.begin({ id });
  await eventually(() => asking);
  await toy.listening.tell({ id, step: 'two', ok: true });
  letGo();
  await reaches(id, 'completed');
});

it('a cancelled saga stops where it is, and a step that comes back late changes nothing', async () => {
  let letGo!: () => void;
  const held = new Promise<void>((resolve) => (letGo = resolve));
  let holding = false;
  const { log, steps } = recorded({ two: { run: () => ((holding = true), held.then(() => done())) } });
  const toy = await start({ steps });
  const id = newId();
  await toy.listening.begin({ id });
  await eventually(() => holding);
  await toy.listening.stop({ id });
  letGo();
  await toy.close();
  closing.length = 0;
  expect((await row(id))?.state).toBe('cancelled');
  expect(log).toEqual(['one']);
});

it('is taken over by another process when its own has died, which goes on with the step it was in, with the same key', async () => {
  let letGo!: () => void;
  const hung = new Promise<void>((resolve) => (letGo = resolve));
  let hanging = false;
  const keys: unknown[] = [];
  const dying = recorded({
    two: {
      run: (_data, call) => {
        hanging = keys.push(call.idempotencyKey) > 0;
        return hung.then(() => done());
      },
    },
  });
  let alive = true;
  const placement: Placement = {
    ...allLocal,
    decide: (_context, kind) => ({ at: alive || kind !== 'job' ? 'local' : 'hold' }),
  };
  const dead = await startToy(test, { steps: dying.steps }, { placement });
  const id = newId();
  await dead.listening.begin({ id });
  await eventually(() => hanging);
  alive = false;
  const { log, steps } = recorded({
    two: { run: async (_data: Data, call: CallOptions) => (keys.push(call.idempotencyKey), done<Data>()) },
  });
  await start({ steps });
  await test.admin(`update orders.saga set due_at = now() where id = $1`, [id]); // its lease is over
  await reaches(id, 'completed');
  expect(log).toEqual(['three']);
  expect(keys).toEqual([`orders.toy:${id}:two`, `orders.toy:${id}:two`]);
  // What the dead one comes back with is too late to count.
  letGo();
  await dead.close();
  expect((await row(id))?.state).toBe('completed');
  expect(dying.log).toEqual(['one']);
});

it('a step without a deadline has no way back: it is tried until it works', async () => {
  let tries = 0;
  const { log, steps } = recorded({
    three: {
      withinMs: undefined,
      run: async () => {
        if (++tries < 4) throw new DomainError('NO', 'conflict', 'no');
        return done();
      },
    },
  });
  const toy = await start({ steps });
  const id = newId();
  await toy.listening.begin({ id });
  await reaches(id, 'completed', 40_000);
  expect(log).toEqual(['one', 'two']);
});

it('a step with nothing to do but wait costs no transition of its own', async () => {
  const { log, steps } = recorded({ two: { run: undefined, withinMs: undefined } });
  const toy = await start({ steps });
  const id = newId();
  await toy.listening.begin({ id });
  await reaches(id, 'two:waiting');
  await toy.listening.tell({ id, step: 'two', ok: true });
  await reaches(id, 'completed');
  expect(log).toEqual(['one', 'three']);
});

it('two signals of one transaction are both seen', async () => {
  const { log, steps } = recorded({
    two: { run: undefined, withinMs: undefined },
    three: { run: undefined, withinMs: undefined },
  });
  const toy = await start({ steps });
  const id = newId();
  await toy.listening.begin({ id });
  await reaches(id, 'two:waiting');
  await toy.listening.tellTwice({ id });
  await reaches(id, 'completed');
  expect(log).toEqual(['one']);
});
