import type { AddressInfo } from 'node:net';
import { Controller, Get, Module, Post } from '@nestjs/common';
import { type ServerProcess, eventually, startRedis } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../config/index.js';
import { PatientLink } from '../redis/patient-link.spec-support.js';
import { Answers, RateLimits, createHttpApp } from './index.js';

@Controller()
class ThingsController {
  @Get() @Answers(200) read() {
    return {};
  }
  @Post() @Answers(200) write() {
    return {};
  }
}

@Module({ controllers: [ThingsController] })
class ThingsModule {}

async function statuses(env: Record<string, string>) {
  const app = await createHttpApp(ThingsModule, loadConfig({ BANYAN_WRITES_PER_SECOND: '5', ...env }), {
    logger: false,
  });
  await app.listen(0, '127.0.0.1');
  const url = `http://127.0.0.1:${(app.getHttpServer().address() as AddressInfo).port}`;
  const answers = await Promise.all(Array.from({ length: 30 }, () => fetch(url, { method: 'POST' })));
  const read = await fetch(url);
  await app.close();
  return { refused: answers.filter(({ status }) => status === 429), read: read.status };
}

describe('writes from one address', () => {
  it('past the limit: 429 with Retry-After; reads go on', async () => {
    const { refused, read } = await statuses({});
    expect(refused.length).toBeGreaterThan(0);
    expect(refused[0]?.headers.get('retry-after')).toBe('1');
    expect(await refused[0]?.json()).toMatchObject({ code: 'RATE_LIMITED', status: 429 });
    expect(read).toBe(200);
  });
  it('are not counted with limits off', async () => {
    expect((await statuses({ BANYAN_RATE_LIMITS: 'off' })).refused).toEqual([]);
  });
});

/* One suite for every place where attempts may be counted. `processes` share what they count, where that is possible. */
describe.each(['memory', 'redis'] as const)('guesses at one account, counted in %s', (where) => {
  let redis: ServerProcess | undefined;
  const links: PatientLink[] = [];
  beforeAll(async () => {
    if (where === 'redis') redis = await startRedis();
  });
  afterAll(() => redis?.stop());
  afterEach(() => links.splice(0).forEach((link) => link.close()));

  async function process(settings: Record<string, string> = {}): Promise<RateLimits> {
    if (!redis) return new RateLimits(loadConfig(settings));
    const link = new PatientLink(redis.url);
    links.push(link);
    await eventually(() => link.up);
    return new RateLimits(loadConfig({ REDIS_URL: redis.url, ...settings }), link);
  }
  let accounts = 0;
  const account = () => `guest-${++accounts}@example.com`;
  const guess = (limits: RateLimits, key: string) => limits.take('login.account', key);

  it('run out, also when they come all at once, and only for that account', async () => {
    const limits = await process();
    const [a, b] = [account(), account()];
    const tries = await Promise.allSettled(Array.from({ length: 50 }, () => guess(limits, a)));
    expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(10);
    await expect(guess(limits, a)).rejects.toMatchObject({
      code: 'RATE_LIMITED',
      data: { retryAfterMs: expect.any(Number) },
    });
    await expect(guess(limits, b)).resolves.toBeUndefined();
  });

  it('are forgotten after a login that succeeds', async () => {
    const limits = await process();
    const a = account();
    for (let n = 0; n < 25; n++) {
      await guess(limits, a);
      await limits.clear('login.account', a);
    }
  });

  it('a point given back can be taken again', async () => {
    const limits = await process();
    const a = account();
    for (let n = 0; n < 25; n++) {
      await guess(limits, a);
      await limits.giveBack('login.account', a);
    }
  });

  it('come back when their time is over', async () => {
    const limits = await process({ BANYAN_WRITES_PER_SECOND: '3' });
    const write = () =>
      limits.take('write.address', '10.0.0.2').then(
        () => 'passed',
        (refusal) => refusal.code,
      );
    let from = performance.now();
    for (let round = 0; round < 2; round++) {
      const writes = await Promise.all(Array.from({ length: 12 }, write));
      // Those that were held up for longer than a second have had another second's share.
      const seconds = Math.floor((performance.now() - from) / 950) + 1;
      const passed = writes.filter((each) => each === 'passed').length;
      // One may be gone: who waited for the next second took it.
      expect(passed).toBeGreaterThanOrEqual(2);
      expect(passed).toBeLessThanOrEqual(3 * seconds);
      expect(new Set(writes)).toEqual(new Set(['passed', 'RATE_LIMITED']));
      await eventually(async () => {
        from = performance.now();
        return (await write()) === 'passed';
      });
    }
  });

  it.runIf(where === 'redis')('begin again in a Redis that is emptied while it is there', async () => {
    const limits = await process();
    const a = account();
    for (let round = 0; round < 2; round++) {
      const tries = await Promise.allSettled(Array.from({ length: 20 }, () => guess(limits, a)));
      expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(10);
      await links[0]!.commands.flushall();
    }
  });

  it.runIf(where === 'redis')('are the same in every process, and after Redis was killed', async () => {
    const [one, two] = [await process(), await process()];
    const a = account();
    const guesses = Array.from({ length: 30 }, (_, n) => guess(n % 2 ? one : two, a));
    expect((await Promise.allSettled(guesses)).filter(({ status }) => status === 'fulfilled')).toHaveLength(10);
    await redis!.restart();
    const after = await eventually(() =>
      guess(two, a).catch((error) => error.code !== 'UPSTREAM_UNAVAILABLE' && error),
    );
    expect(after).toMatchObject({ code: 'RATE_LIMITED' });
  });

  it.runIf(where === 'redis')(
    'cannot be made while Redis is away: 503; who only writes passes, and is counted',
    async () => {
      const limits = await process({ BANYAN_WRITES_PER_SECOND: '50' });
      const a = account();
      await guess(limits, a);
      await redis!.kill();
      for (const name of ['login.account', 'login.address'] as const)
        await eventually(() =>
          expect(limits.take(name, a)).rejects.toMatchObject({
            code: 'UPSTREAM_UNAVAILABLE',
            kind: 'unavailable',
            data: { retryAfterMs: 2_000 },
          }),
        );
      await limits.clear('login.account', a);
      await limits.giveBack('login.address', a);
      await limits.take('register.address', '10.0.0.1');
      const writes = Array.from({ length: 200 }, () => limits.take('write.address', '10.0.0.1'));
      const passed = (await Promise.allSettled(writes)).filter(({ status }) => status === 'fulfilled').length;
      expect(passed).toBeGreaterThanOrEqual(50);
      expect(passed).toBeLessThan(200);
      await redis!.restart();
      await eventually(() => guess(limits, a).then(() => true));
    },
  );

  it.runIf(where === 'redis')("leave nobody's e-mail address in Redis", async () => {
    const limits = await process();
    await guess(limits, 'alice@example.com');
    expect((await links[0]!.commands.keys('*')).join()).not.toContain('alice');
  });
});
