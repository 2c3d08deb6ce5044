import { RedisTokens } from '@banyan/proxy';
import { RedisLink } from '@banyan/platform/redis';
import { type ServerProcess, eventually, startRedis } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { Recorder, values } from './recorder.js';
import { ToyRouting, canaryFor, startToy } from './toy.js';

let redis: ServerProcess;
beforeAll(async () => {
  redis = await startRedis();
});
afterAll(() => redis?.stop());

const answer = (body: string, ...headers: string[]): string =>
  ['HTTP/1.1 200 OK', `content-length: ${body.length}`, ...headers, '', body].join('\r\n');

let position = 0x100;

/** Two proxies of one fleet in front of a canary that `ann` reads from. Each write is one further on in the log. */
async function fleet(patience?: number) {
  const monolith = await Recorder.start(({ line }) =>
    line.startsWith('PUT')
      ? answer('monolith', `Banyan-Consistency: inventory=monolith:3:0/${(++position).toString(16).toUpperCase()}`)
      : answer('monolith'),
  );
  const service = await Recorder.start(() => answer('service'));
  const proxy = async () => {
    const link = new RedisLink(redis.url);
    onTestFinished(() => link.close());
    await link.start();
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', epoch: 3, at: service.url } });
    const shared = new RedisTokens(link, patience);
    const { url } = await startToy(routing, { canary: canaryFor('ann'), shared });
    return `${url}/v1/stock/1`;
  };
  const [one, two] = [await proxy(), await proxy()];
  const headers = { 'banyan-session': 'ann' };
  const write = async (at: string) => {
    const written = await fetch(at, { method: 'PUT', body: '{}', headers });
    expect([written.status, await written.text()]).toEqual([200, 'monolith']);
    return written.headers.get('banyan-consistency')!;
  };
  const read = async (at: string) => {
    const answered = await fetch(at, { headers });
    await answered.text();
    const by = answered.headers.get('banyan-served-by');
    return { by, token: by === 'service' ? values(service.requests.at(-1)!, 'banyan-consistency')[0] : undefined };
  };
  return { one, two, write, read };
}

const patient = { timeoutMs: 20_000 };

/** Does it at once, when the machine lets it: what waits for Redis takes a second, every time. */
const promptly = (work: () => Promise<void>) =>
  eventually(async () => {
    const from = performance.now();
    await work();
    return performance.now() - from < 1_000;
  }, patient);

describe('what a caller has written through one proxy', () => {
  it('another one knows as soon as the caller does, and the later of two counts', async () => {
    // Elsewhere 50 ms: here it would be the machine that is tested.
    const { one, two, write, read } = await fleet(5_000);
    const believed = () =>
      eventually(async () => {
        for (const proxy of [one, two]) expect((await read(proxy)).by).toBe('service');
        return true;
      }, patient);
    await believed();
    for (let n = 0; n < 50;) {
      const [at, other] = n % 2 ? [one, two] : [two, one];
      const from = performance.now();
      const token = await write(at);
      const seen = [await read(other), await read(at)];
      if (performance.now() - from > 900) {
        // Redis is given up on after a second: then nobody knows, and that is another matter.
        await believed();
        continue;
      }
      expect(seen).toEqual([
        { by: 'service', token },
        { by: 'service', token },
      ]);
      n++;
    }
  });

  it('is not known while Redis is away: then the owner serves who is known; afterwards nothing is missing', async () => {
    const { one, two, write, read } = await fleet();
    await write(one);
    await redis.kill();
    let token = '';
    await promptly(async () => {
      token = await write(one);
      expect((await read(two)).by).toBe('monolith');
      expect((await read(one)).by).toBe('monolith');
    });
    await redis.restart({ emptied: true });
    const seen = await eventually(async () => {
      const answered = await read(two);
      return answered.by === 'service' && answered;
    }, patient);
    expect(seen.token).toBe(token);
  });

  it('with a Redis that hangs nobody waits long', async () => {
    const { one, two, write, read } = await fleet();
    const goOn = redis.pause();
    await promptly(async () => {
      await write(one);
      expect((await read(two)).by).toBe('monolith');
    });
    goOn();
    await eventually(async () => (await read(two)).by === 'service', patient);
  });
});
