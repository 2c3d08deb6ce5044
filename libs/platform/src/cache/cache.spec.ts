import { setTimeout as pause } from 'node:timers/promises';
import { DomainError } from '@banyan/kernel';
import { type ServerProcess, eventually, startRedis } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { PatientLink, withLongLeases } from '../redis/patient-link.spec-support.js';
import { type Cache, type Kept, RedisCache, noCache } from './index.js';

let redis: ServerProcess;
beforeAll(async () => {
  redis = await startRedis();
});
afterAll(() => redis?.stop());

let opened: (() => void)[] = [];
afterEach(() => {
  for (const close of opened) close();
  opened = [];
});

/** A cache as one process has it. */
async function redisCache(): Promise<Cache> {
  const link = new PatientLink(redis.url);
  await link.start();
  const cache = new RedisCache(link);
  withLongLeases(link);
  opened.push(() => (cache.close(), link.close()));
  // Only with messages coming does it keep anything.
  await keeping(cache);
  return cache;
}

/** Resolves when a second read comes without a load. */
const keeping = (cache: Cache) =>
  eventually(async () => {
    const key = newKey();
    let loads = 0;
    for (let n = 0; n < 2; n++) {
      await cache.through({ ...kept, key }, async () => ++loads);
      await pause(5);
    }
    return loads === 1;
  });

const kept = { freshMs: 60_000, staleMs: 60_000 };
let keys = 0;
const newKey = () => `thing/${++keys}`;
/** A load that says when it has begun, and ends when it is told what it has read. */
function slowLoad() {
  const [begun, read] = [Promise.withResolvers<void>(), Promise.withResolvers<string>()];
  const load = () => (begun.resolve(), read.promise);
  return { load, begun: begun.promise, finish: read.resolve };
}
/** A read for which `load` is asked: it comes when what is kept has become old. */
const askedAnew = <T>(cache: Cache, at: Kept<T>, load: () => Promise<T>) =>
  eventually(async () => {
    const asked = Promise.withResolvers<true>();
    const read = cache.through(at, () => (asked.resolve(true), load()));
    const over = read.then(
      () => false,
      () => false,
    );
    // In an object: else it would be waited for.
    return (await Promise.race([asked.promise, over])) && { read };
  });
const away = () => Promise.reject(new DomainError('DATABASE_UNAVAILABLE', 'unavailable', 'away'));

/* What holds for every implementation, and for any number of processes. */
describe.each([
  ['none', async () => noCache],
  ['redis', redisCache],
] as const)('a cache (%s)', (_, open) => {
  it('gives what the load gives, and its errors', async () => {
    const cache = await open();
    const key = newKey();
    const missing = new DomainError('THING_UNKNOWN', 'not_found', 'no');
    await expect(cache.through({ ...kept, key }, () => Promise.reject(missing))).rejects.toBe(missing);
    expect(await cache.through({ ...kept, key }, async () => ({ a: [1, null] }))).toEqual({ a: [1, null] });
    expect(await cache.through({ ...kept, key }, async () => ({ a: [1, null] }))).toEqual({ a: [1, null] });
  });

  it('gives nobody what was forgotten before he asked, be it still being loaded', async () => {
    const cache = await open();
    for (const what of ['key', 'group'] as const) {
      const [key, group] = [newKey(), newKey()];
      const read = (load: () => Promise<unknown>) => cache.through({ ...kept, key, groups: [group] }, load);
      const { load, begun, finish } = slowLoad();
      const early = read(load);
      await begun;
      const forgotten = cache.forget(what === 'key' ? { keys: [key] } : { groups: [group] });
      const late = read(async () => 'new');
      finish('old');
      expect(await early).toBe('old');
      expect(await late).toBe('new');
      await forgotten;
      await pause(20);
      expect(await read(async () => 'new')).toBe('new');
    }
  });

  it('ends at what is true, however reads and changes meet in three processes', async () => {
    const processes = [await open(), await open(), await open()];
    const versions = new Map<string, number>();
    const load = (key: string) => async () => {
      const read = versions.get(key) ?? 0;
      await pause(Math.random() * 4);
      return read;
    };
    for (let round = 0; round < 40; round++) {
      const key = newKey();
      const at = { ...kept, key, groups: [`group/${round}`] };
      await Promise.all(
        Array.from({ length: 30 }, async (_, n) => {
          await pause(Math.random() * 20);
          const cache = processes[n % 3]!;
          if (n % 4 > 0) return cache.through(at, load(key));
          const version = (versions.get(key) ?? 0) + 1;
          versions.set(key, version);
          // Who has changed something sees that, or what came later.
          const told = cache.forget(n % 8 > 0 ? { keys: [key] } : { groups: at.groups });
          expect(await cache.through(at, load(key))).toBeGreaterThanOrEqual(version);
          return told;
        }),
      );
      await eventually(async () => {
        for (const cache of processes) expect(await cache.through(at, load(key))).toBe(versions.get(key));
        return true;
      });
    }
  });
});

describe('with Redis', () => {
  it('one load for all who ask, in all processes', async () => {
    const processes = [await redisCache(), await redisCache(), await redisCache()];
    const key = newKey();
    let loads = 0;
    const load = async () => (await pause(100), ++loads);
    // Who has waited for a second would load for himself: for this one no time passes.
    const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now());
    onTestFinished(() => void clock.mockRestore());
    const asked = processes.flatMap((cache) => Array.from({ length: 20 }, () => cache.through({ ...kept, key }, load)));
    expect(new Set(await Promise.all(asked))).toEqual(new Set([1]));
    for (const cache of processes) expect(await cache.through({ ...kept, key }, load)).toBe(1);
  });

  it('what one process forgets, the others forget a moment later, from their memory too', async () => {
    const [one, two] = [await redisCache(), await redisCache()];
    const [key, listed] = [newKey(), newKey()];
    const group = newKey();
    let truth = 1;
    const read = (cache: Cache) => cache.through({ ...kept, key }, async () => truth);
    const list = (cache: Cache) => cache.through({ ...kept, key: listed, groups: [group] }, async () => truth);
    for (const cache of [one, two]) await Promise.all([read(cache), list(cache)]);
    truth = 2;
    await one.forget({ keys: [key], groups: [group] });
    expect([await read(one), await list(one)]).toEqual([2, 2]);
    await eventually(async () => (await read(two)) === 2 && (await list(two)) === 2);
  });

  it('an old value is given while one process loads it anew, and when that fails; an answer is no failure', async () => {
    const [one, two] = [await redisCache(), await redisCache()];
    const short = { key: newKey(), freshMs: 40, staleMs: 60_000 };
    await one.through(short, async () => 'first');
    const { load, finish } = slowLoad();
    const anew = await askedAnew(one, short, load);
    expect(await two.through(short, async () => 'not asked')).toBe('first');
    finish('second');
    expect(await anew.read).toBe('second');
    expect(await (await askedAnew(two, short, away)).read).toBe('second');
    // For a while its source is left alone.
    expect(await one.through(short, async () => 'too soon')).toBe('second');
    await one.forget({ keys: [short.key] });
    await expect(one.through(short, away)).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
    expect(await one.through(short, async () => 'third')).toBe('third');
    const gone = new DomainError('THING_UNKNOWN', 'not_found', 'no');
    const failing = await askedAnew(one, short, () => Promise.reject(gone));
    await expect(failing.read).rejects.toBe(gone);
  });

  it('a process that never comes back with its load holds nobody up for long', async () => {
    const [one, two] = [await redisCache(), await redisCache()];
    const key = newKey();
    const { load, begun } = slowLoad();
    void one.through({ ...kept, key }, load);
    await begun;
    const from = performance.now();
    expect(await two.through({ ...kept, key }, async () => 'mine')).toBe('mine');
    // That one's lease lasts for two minutes.
    expect(performance.now() - from).toBeLessThan(30_000);
  });

  it('keeps neither what is too large nor what is not worth it', async () => {
    const cache = await redisCache();
    const key = newKey();
    let loads = 0;
    const large = async () => (loads++, 'x'.repeat(300_000));
    await cache.through({ ...kept, key }, large);
    await cache.through({ ...kept, key }, large);
    const unworthy = { ...kept, key: newKey(), keepIf: (n: number) => n > 10 };
    await cache.through(unworthy, async () => loads++);
    await cache.through(unworthy, async () => loads++);
    expect(loads).toBe(4);
  });

  it('while Redis is away everybody loads; what is left in memory is only good instead of a failure', async () => {
    const cache = await redisCache();
    const key = newKey();
    const read = <T>(load: () => Promise<T>) => cache.through({ ...kept, key }, load);
    await read(async () => 'before');
    await keeping(cache);
    await redis.kill();
    expect(await eventually(async () => (await read(async () => 'during')) === 'during')).toBe(true);
    expect(await read(away)).toBe('before');
    await cache.forget({ keys: [key] });
    await expect(read(away)).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
    await redis.restart();
    await keeping(cache);
    await read(async () => 'anew');
    expect(await read(async () => 'not asked')).toBe('anew');
  });

  it('what changed while Redis was away is not believed afterwards, even if who changed it has died', async () => {
    const [dies, lives] = [await redisCache(), await redisCache()];
    const [key, group] = [newKey(), newKey()];
    let truth = 'old';
    const read = (cache: Cache) => cache.through({ ...kept, key, groups: [group] }, async () => truth);
    await Promise.all([read(dies), read(lives)]);
    await redis.kill();
    truth = 'new';
    await dies.forget({ keys: [key], groups: [group] });
    opened[0]!();
    // Its data comes back from disk, and the old value with it.
    await redis.restart();
    const said = new Set<string>();
    const back = keeping(lives).then(() => true);
    do said.add(await read(lives));
    while (!(await Promise.race([back, pause(1, false)])));
    said.add(await read(lives));
    expect([...said]).toEqual(['new']);
  });

  it('comes back when Redis was emptied', async () => {
    const cache = await redisCache();
    const key = newKey();
    await cache.through({ ...kept, key }, async () => 'before');
    await redis.restart({ emptied: true });
    await eventually(async () => (await cache.through({ ...kept, key }, async () => 'after')) === 'after');
    await keeping(cache);
  });
});
