import { RedisLink } from '@banyan/platform/redis';
import { readiness } from '@banyan/platform/telemetry';
import { type ServerProcess, eventually, startRedis, testDatabase } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { JobContext } from './handlers.js';
import { Jobs } from './jobs.js';
import { anonymous } from '@banyan/kernel';
import { newScope, runInScope } from './scope.js';

const test = testDatabase({ contexts: ['inventory'] });

let redis: ServerProcess;
beforeAll(async () => {
  redis = await startRedis();
});
afterAll(() => redis?.stop());

const started: (() => Promise<void>)[] = [];
afterEach(async () => {
  await Promise.all(started.splice(0).map((stop) => stop()));
});

/** Longer than any spec, ms. */
const LONG = 120_000;

/** On a busy machine an answer that is late is no sign that Redis is away. */
class PatientLink extends RedisLink {
  override connect(options: Parameters<RedisLink['connect']>[0]) {
    const { commandTimeout } = options;
    return super.connect({ ...options, connectTimeout: LONG, commandTimeout: commandTimeout && LONG });
  }
}

/** What takes longer than this waits for a Redis that is away, ms; a busy machine may take some of it. */
const PROMPT = 7_000;
async function promptly<T>(work: () => Promise<T>): Promise<T> {
  const from = performance.now();
  const done = await work();
  expect(performance.now() - from).toBeLessThan(PROMPT);
  return done;
}

let names = 0;

/* One suite for each place where the queue may be. */
describe.each(['postgres', 'redis'] as const)('jobs, with their queue in %s', { timeout: 120_000 }, (where) => {
  /** A fleet's queue of its own. */
  const fleet = (Link: typeof RedisLink = PatientLink) => {
    const queue = `fleet-${++names}`;
    const process = async (
      jobs: Record<string, number>,
      ran: (name: string, ctx: JobContext) => unknown,
      active?: (context: string) => boolean,
    ) => {
      const link = where === 'redis' ? new Link(redis.url) : undefined;
      await link?.start();
      if (link && Link === PatientLink) await eventually(() => link.up);
      const all = new Jobs(
        { connectionString: test.adminUrl, schema: `jobs_${queue.replace('-', '_')}`, queue },
        active,
        link,
        200,
      );
      for (const [name, everyMs] of Object.entries(jobs))
        all.add(name, { everyMs, run: async (ctx) => void (await ran(name, ctx)) });
      await all.start();
      const stop = async () => {
        await all.stop();
        link?.close();
      };
      started.push(stop);
      return { jobs: all, stop };
    };
    return process;
  };
  const MINUTE = 60_000;

  it('each comes round by itself, once for all processes', async () => {
    const process = fleet();
    const rounds: string[] = [];
    const all = await Promise.all(['a', 'b', 'c'].map((who) => process({ 'shop.sweep': 400 }, () => rounds.push(who))));
    await eventually(() => rounds.length >= 4, { timeoutMs: 30_000 });
    const from = rounds.length;
    const at = performance.now();
    await eventually(() => rounds.length >= from + 8, { timeoutMs: 30_000 });
    // Seven intervals lie between those eight, but for one or two that come late. Three schedules would do that in 1 s.
    expect(performance.now() - at).toBeGreaterThan(1_900);
    expect(all).toHaveLength(3);
  });

  it('is woken: now, later, once for one id, and after the transaction that wakes it', async () => {
    const ran: (string | undefined)[] = [];
    const { jobs } = await fleet()({ 'shop.sweep': MINUTE }, (_, { id }) => ran.push(id));
    await eventually(() => ran.length === 1);
    // Late enough for all of these to be said before.
    const at = new Date(Date.now() + 6_000);
    await Promise.all([1, 2, 3].map(() => jobs.wake('shop.sweep', { id: 'a:b', at })));
    await jobs.wake('shop.sweep', { id: 'c' });
    await eventually(() => ran.length === 3, { timeoutMs: 20_000 });
    expect(ran).toEqual([undefined, 'c', 'a:b']);

    const commits: (() => void)[] = [];
    const scope = { ...newScope(anonymous), afterCommit: (fn: () => void) => void commits.push(fn) };
    await runInScope(scope, () => jobs.wake('shop.sweep', { id: 'committed' }));
    expect(commits).toHaveLength(1);
    commits[0]!();
    await eventually(() => ran.at(-1) === 'committed');
    // An id is free again once its job has run.
    await jobs.wake('shop.sweep', { id: 'c' });
    await eventually(() => ran.at(-1) === 'c');
  });

  it('fails alone: the next round tries again, and the others run', async () => {
    const ran: string[] = [];
    await fleet()({ 'shop.bad': 300, 'shop.good': 300 }, (name) => {
      ran.push(name);
      if (name === 'shop.bad') throw new Error('not this time');
    });
    await eventually(() => ran.filter((name) => name === 'shop.bad').length > 1);
    await eventually(() => ran.filter((name) => name === 'shop.good').length > 1);
  });

  it('does nothing where its context is owned elsewhere', async () => {
    let owned = false;
    let ran = 0;
    let others = 0;
    const { jobs } = await fleet()(
      { 'shop.sweep': 200, 'mall.sweep': 200 },
      (name) => (name === 'shop.sweep' ? ran++ : others++),
      (context) => context === 'mall' || owned,
    );
    await jobs.wake('shop.sweep');
    await eventually(() => others > 3);
    expect(ran).toBe(0);
    owned = true;
    await eventually(() => ran > 0);
  });

  it('goes on in another process when one stops, which lets it end', async () => {
    const process = fleet();
    let [running, ended, others] = [0, 0, 0];
    const first = await process({ 'shop.slow': MINUTE }, async () => {
      running++;
      await new Promise((resolve) => setTimeout(resolve, 300));
      ended++;
    });
    await eventually(() => running === 1);
    await first.stop();
    expect(ended).toBe(1);
    const { jobs } = await process({ 'shop.slow': MINUTE }, () => others++);
    await jobs.wake('shop.slow');
    await eventually(() => others > 0);
  });

  it('a schedule that changed is changed, and what the code no longer has comes round no more', async () => {
    const process = fleet();
    const before = await process({ 'shop.old': 200, 'shop.sweep': MINUTE }, () => {});
    await before.stop();
    const ran: string[] = [];
    await process({ 'shop.sweep': 200 }, (name) => ran.push(name));
    // A run that the first one took along when it stopped is given up after 10 to 15 s.
    await eventually(() => ran.length > 3, { timeoutMs: 60_000 });
    expect(new Set(ran)).toEqual(new Set(['shop.sweep']));
  });

  describe.runIf(where === 'redis')('when Redis', () => {
    it('is away, they wait: nobody who wakes one does, the start and the stop neither', async () => {
      const process = fleet(RedisLink);
      const ran: (string | undefined)[] = [];
      const first = await process({ 'shop.sweep': 300 }, (_, { id }) => ran.push(id));
      await eventually(() => ran.length > 0);
      await redis.kill();
      try {
        // A start takes a second at most, a stop half of one; wakes are refused at once.
        const second = await promptly(() => process({ 'shop.sweep': 300 }, (_, { id }) => ran.push(id)));
        for (const { jobs } of [first, second]) await promptly(() => jobs.wake('shop.sweep', { id: 'lost' }));
        const third = await promptly(() => process({ 'shop.sweep': 300 }, () => {}));
        await promptly(() => third.stop());
        const before = ran.length;
        await redis.restart();
        // A run that was under way is given up after 10 to 15 s.
        await eventually(() => ran.length > before + 2, { timeoutMs: 40_000 });
        // It is lost as long as this one has not found Redis again.
        await eventually(async () => {
          await second.jobs.wake('shop.sweep', { id: 'heard' });
          return ran.includes('heard');
        });
        await redis.kill();
        await promptly(() => Promise.all([first.stop(), second.stop()]));
      } finally {
        await redis.restart();
      }
    });

    it('is emptied, they come back by themselves', async () => {
      const process = fleet();
      let ran = 0;
      const { jobs } = await process(
        { 'shop.sweep': 300, 'shop.other': MINUTE },
        (name) => void (name === 'shop.sweep' && ran++),
      );
      await eventually(() => ran > 0);
      const link = new PatientLink(redis.url);
      await link.start();
      await eventually(() => link.up);
      await link.commands.flushall();
      link.close();
      const flushed = ran;
      await eventually(() => ran > flushed + 3, { timeoutMs: 40_000 });
      const before = ran;
      await redis.restart({ emptied: true });
      await eventually(() => ran > before + 3, { timeoutMs: 40_000 });
      await jobs.wake('shop.sweep', { id: 'x' });
    });

    it('refuses what they need, that is said, and they run once it does not', async () => {
      const ran: string[] = [];
      const operator = new PatientLink(redis.url);
      await operator.start();
      await eventually(() => operator.up);
      await operator.commands.acl('SETUSER', 'default', '-evalsha', '-eval');
      try {
        await fleet()({ 'shop.sweep': 300 }, (name) => ran.push(name));
        await eventually(async () =>
          expect((await readiness.report()).degraded).toContainEqual(expect.stringMatching(/^jobs: NOPERM/)),
        );
      } finally {
        await operator.commands.acl('SETUSER', 'default', '+@all');
        operator.close();
      }
      await eventually(() => ran.length > 0, { timeoutMs: 40_000 });
      await eventually(async () => expect((await readiness.report()).degraded).toBeUndefined());
    });

    it('hangs, and goes on', async () => {
      const process = fleet(RedisLink);
      let ran = 0;
      const { jobs } = await process({ 'shop.sweep': 300 }, () => ran++);
      await eventually(() => ran > 0);
      const goOn = redis.pause();
      try {
        await promptly(() => jobs.wake('shop.sweep', { id: 'y' }));
      } finally {
        goOn();
      }
      const before = ran;
      await eventually(() => ran > before + 2, { timeoutMs: 40_000 });
    });
  });
});
