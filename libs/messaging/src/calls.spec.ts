import { randomUUID } from 'node:crypto';
import { DomainError } from '@banyan/kernel';
import { eventually, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { currentScope, newScope, runInScope } from './scope.js';
import { type Way, alice, bob, createToyTables, startToy, ways } from './toy.spec-support.js';

const test = testDatabase({ contexts: ['inventory', 'orders'] });
beforeAll(() => createToyTables(test));

const failure = async (call: Promise<unknown>): Promise<DomainError> => {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!DomainError.is(error)) throw new Error(`expected a DomainError, got ${String(error)}`);
  return error;
};

// The conformance suite of calls: what holds for one holds wherever its context runs.
describe.each(ways)('a call %s', (_name, open) => {
  let way: Way;
  let toy: Awaited<ReturnType<typeof startToy>>;
  beforeAll(async () => {
    way = await open();
    toy = await startToy(test, way.hooks, { placement: way.placement, holdMs: 20_000 });
  });
  afterAll(async () => {
    await toy.close();
    await way.close();
  });
  const counter = () => `c-${randomUUID()}`;
  const outboxOf = (name: string) =>
    test.admin(`select * from inventory.outbox where aggregate = $1`, [`counter/${name}`]);

  it('writes the row and the event together', async () => {
    const name = counter();
    expect(await toy.counting.add({ name, by: 2 })).toMatchObject({ name, value: 2 });
    expect(await toy.counting.valueOf({ name })).toEqual({ name, value: 2 });
    expect(await outboxOf(name)).toMatchObject([{ type: 'inventory.Added', version: '1', subscriber: 'orders' }]);
  });

  it('keeps neither row nor event when the command is refused, and the refusal keeps its code, kind and facts', async () => {
    const name = counter();
    expect(await failure(toy.counting.add({ name, by: -1 }))).toMatchObject({
      code: 'COUNTER_NEGATIVE',
      kind: 'conflict',
      data: { value: -1 },
    });
    expect(await outboxOf(name)).toEqual([]);
    expect(await failure(toy.counting.valueOf({ name }))).toMatchObject({ code: 'COUNTER_UNKNOWN', kind: 'not_found' });
  });

  it('answers a bug as INTERNAL without its details, and keeps nothing', async () => {
    const name = counter();
    const error = await failure(toy.counting.add({ name, by: 1, then: 'fail' }));
    expect(error).toMatchObject({ code: 'INTERNAL', kind: 'internal' });
    expect(JSON.stringify(error)).not.toContain('secret');
    expect(await failure(toy.counting.add({ name, by: 1, then: 'lie' }))).toMatchObject({ code: 'INTERNAL' });
    expect(await outboxOf(name)).toEqual([]);
  });

  it('points at what is wrong with an input', async () => {
    const input = { name: '', by: 1.5, more: true } as unknown as { name: string; by: number };
    const error = await failure(toy.counting.add(input));
    expect(error).toMatchObject({ code: 'INPUT_INVALID', kind: 'invalid' });
    expect(error.data?.errors?.map(({ pointer }) => pointer)).toEqual(expect.arrayContaining(['/name', '/by', '']));
  });

  it('refuses a call from inside a transaction', async () => {
    const name = counter();
    expect(await failure(toy.counting.add({ name, by: 1, then: 'call' }))).toMatchObject({ code: 'INTERNAL' });
    expect(await outboxOf(name)).toEqual([]);
  });

  it('gives up a call whose deadline has passed, before it runs', async () => {
    const name = counter();
    // The way there is open: without one, that would be the answer.
    await toy.counting.sleep({ ms: 0 });
    const late = runInScope(newScope(alice, Date.now() - 1), () => failure(toy.counting.add({ name, by: 1 })));
    expect(await late).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    expect(await outboxOf(name)).toEqual([]);
  });

  describe('with an idempotency key', () => {
    it('has one effect, and answers the same again', async () => {
      const [name, idempotencyKey] = [counter(), randomUUID()];
      const call = () => toy.counting.add({ name, by: 3 }, { idempotencyKey, actor: alice });
      const first = await call();
      const scope = newScope(alice);
      const second = await runInScope(scope, call);
      expect(JSON.stringify(second)).toBe(JSON.stringify(first));
      expect(scope.seen.replayed).toBe(true);
      expect(await toy.counting.valueOf({ name })).toMatchObject({ value: 3 });
      expect(currentScope()).toBeUndefined();
    });

    it('has one effect when many calls come at once: each gets the answer or is told to wait', async () => {
      const [name, idempotencyKey] = [counter(), randomUUID()];
      const answers = await Promise.all(
        Array.from({ length: 20 }, async () => {
          for (;;) {
            try {
              return JSON.stringify(await toy.counting.add({ name, by: 1 }, { idempotencyKey, actor: alice }));
            } catch (error) {
              if ((error as DomainError).code !== 'IDEMPOTENCY_IN_PROGRESS') throw error;
            }
          }
        }),
      );
      expect(new Set(answers).size).toBe(1);
      expect(await toy.counting.valueOf({ name })).toMatchObject({ value: 1 });
    });

    it('refuses the key with another body', async () => {
      const [name, idempotencyKey] = [counter(), randomUUID()];
      await toy.counting.add({ name, by: 1 }, { idempotencyKey, actor: alice });
      expect(await failure(toy.counting.add({ name, by: 2 }, { idempotencyKey, actor: alice }))).toMatchObject({
        code: 'IDEMPOTENCY_KEY_REUSED',
        kind: 'mismatch',
      });
    });

    it('keeps the keys of two actors apart', async () => {
      const [name, idempotencyKey] = [counter(), randomUUID()];
      await toy.counting.add({ name, by: 1 }, { idempotencyKey, actor: alice });
      await toy.counting.add({ name, by: 1 }, { idempotencyKey, actor: bob });
      expect(await toy.counting.valueOf({ name })).toMatchObject({ value: 2 });
    });

    it('lets a failed call be tried again', async () => {
      const [name, idempotencyKey] = [counter(), randomUUID()];
      await failure(toy.counting.add({ name, by: -1 }, { idempotencyKey, actor: alice }));
      await toy.counting.add({ name, by: 1 }, { actor: alice });
      expect(await toy.counting.add({ name, by: -1 }, { idempotencyKey, actor: alice })).toMatchObject({ value: 0 });
    });
  });

  describe('while the owner changes', () => {
    const setOpen = (open: boolean) => test.admin('update inventory.banyan_owner set open = $1', [open]);

    it('is refused unrun by the fence, held, and sent again once the owner is open', async () => {
      const name = counter();
      const endpoint = toy.bus.endpoint('inventory')!;
      const { handle } = endpoint;
      const codes: string[] = [];
      endpoint.handle = async (envelope) => {
        const reply = await handle.call(endpoint, envelope);
        if (!reply.ok) codes.push(reply.error.code);
        return reply;
      };
      try {
        await setOpen(false);
        const call = toy.counting.add({ name, by: 1 }, { timeoutMs: 20_000 });
        call.catch(() => {}); // looked at below
        await eventually(() => expect(codes).toContain('CONTEXT_MOVED'));
        await setOpen(true);
        expect(await call).toMatchObject({ value: 1 });
      } finally {
        endpoint.handle = handle;
        await setOpen(true);
      }
    });

    it('is answered "unavailable" when that takes too long, and nothing was written', async () => {
      const name = counter();
      const own = await open();
      const impatient = await startToy(test, own.hooks, { placement: own.placement });
      try {
        await impatient.counting.sleep({ ms: 0 });
        await setOpen(false);
        const error = await failure(impatient.counting.add({ name, by: 1 }, { timeoutMs: 20_000 }));
        expect(error).toMatchObject({ code: 'CONTEXT_MOVED', kind: 'unavailable', data: { retryAfterMs: 1000 } });
      } finally {
        await setOpen(true);
        await impatient.close();
        await own.close();
      }
      expect(await failure(toy.counting.valueOf({ name }))).toMatchObject({ code: 'COUNTER_UNKNOWN' });
    });
  });
});

describe('a change of owner', () => {
  it('waits for the commands that are running, and then no command gets in', async () => {
    const db = test.database('inventory');
    const order: string[] = [];
    let letGo!: () => void;
    const held = new Promise<void>((resolve) => (letGo = resolve));
    const running = db
      .transaction({ text: `select banyan_fence('monolith', null)` }, async () => {
        order.push('command in');
        await held;
        order.push('command out');
      })
      .then(() => undefined);
    await eventually(() => expect(order).toEqual(['command in']));
    const closing = test
      .admin(
        `with closed as (select pg_advisory_xact_lock(hashtextextended('banyan.owner.inventory', 0)))
         update inventory.banyan_owner set open = false from closed`,
      )
      .then(() => order.push('owner closed'));
    letGo();
    await Promise.all([running, closing]);
    expect(order).toEqual(['command in', 'command out', 'owner closed']);
    await expect(db.query(`select banyan_fence('monolith', null)`)).rejects.toMatchObject({ code: 'BN001' });
    await test.admin('update inventory.banyan_owner set open = true');
  });
});
