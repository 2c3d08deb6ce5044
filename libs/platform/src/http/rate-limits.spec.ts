import type { AddressInfo } from 'node:net';
import { Controller, Get, Module, Post } from '@nestjs/common';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../config/index.js';
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

describe('guesses at one account', () => {
  const guess = (limits: RateLimits, account: string) => limits.take('login.account', account);

  it('run out, also when they come all at once, and only for that account', async () => {
    const limits = new RateLimits(loadConfig({}));
    const tries = await Promise.allSettled(Array.from({ length: 50 }, () => guess(limits, 'a')));
    expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(10);
    await expect(guess(limits, 'a')).rejects.toMatchObject({
      code: 'RATE_LIMITED',
      data: { retryAfterMs: expect.any(Number) },
    });
    await expect(guess(limits, 'b')).resolves.toBeUndefined();
  });
  it('are forgotten after a login that succeeds', async () => {
    const limits = new RateLimits(loadConfig({}));
    for (let n = 0; n < 25; n++) {
      await guess(limits, 'a');
      await limits.clear('login.account', 'a');
    }
  });
  it('a point given back can be taken again', async () => {
    const limits = new RateLimits(loadConfig({}));
    for (let n = 0; n < 25; n++) {
      await guess(limits, 'a');
      await limits.giveBack('login.account', 'a');
    }
  });
});
