import { type ServerProcess, eventually, startRedis } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { PatientLink, withLongLeases } from '../redis/patient-link.spec-support.js';
import { RedisCache } from './index.js';

/* What one connection misses while the server, and everybody else, goes on. */

let redis: ServerProcess;
let admin: PatientLink;
beforeAll(async () => {
  redis = await startRedis();
  admin = new PatientLink(redis.url);
  await eventually(() => admin.up);
});
afterAll(async () => {
  admin?.close();
  await redis?.stop();
});

let opened: (() => void)[] = [];
afterEach(() => {
  for (const close of opened) close();
  opened = [];
});

const kept = { freshMs: 60_000, staleMs: 60_000 };
let keys = 0;
const newKey = () => `one-connection/${++keys}`;

/** The numbers of the connections that hear messages. */
const listening = async () =>
  ((await admin.commands.call('CLIENT', 'LIST', 'TYPE', 'pubsub')) as string)
    .match(/^id=\d+/gm)
    ?.map((id) => id.slice(3)) ?? [];
const kill = (id: string | number) => admin.commands.client('KILL', 'ID', id);

/** One process; `read` gives what is true now, unless something kept is taken for it. */
async function open() {
  const before = new Set(await listening());
  const link = new PatientLink(redis.url);
  await link.start();
  const cache = new RedisCache(link);
  withLongLeases(link);
  opened.push(() => (cache.close(), link.close()));
  const read = (key: string, groups?: string[]) => cache.through({ ...kept, key, groups }, async () => truth);
  const keeps = () =>
    eventually(async () => {
      const key = newKey();
      await cache.through({ ...kept, key }, async () => 'kept');
      return (await cache.through({ ...kept, key }, async () => 'not asked')) === 'kept';
    });
  await keeps();
  return { link, cache, read, keeps, ear: async () => (await listening()).find((id) => !before.has(id)) };
}
let truth = 0;

describe('a change that cannot be told because the connection for it has gone', () => {
  /** Runs `change` in the moment in which the connection is lost. */
  async function whileCut({ link }: Awaited<ReturnType<typeof open>>, change: () => Promise<void>) {
    const changed = new Promise<void>((done) => link.commands.once('close', () => void change().then(done)));
    await kill(await link.commands.client('ID'));
    await changed;
  }

  it('is told as soon as that is back, although messages came all the time', async () => {
    const [one, two] = [await open(), await open()];
    const [key, listed, group] = [newKey(), newKey(), newKey()];
    truth = 1;
    for (const { read } of [one, two]) await Promise.all([read(key), read(listed, [group])]);
    await whileCut(one, () => {
      truth = 2;
      return one.cache.forget({ keys: [key], groups: [group] });
    });
    await eventually(() => one.link.up);
    expect([await one.read(key), await one.read(listed, [group])]).toEqual([2, 2]);
    await eventually(async () => (await two.read(key)) === 2 && (await two.read(listed, [group])) === 2);
    await one.keeps();
  });

  it('is told, however many there were', async () => {
    const [one, two] = [await open(), await open()];
    const [key, other] = [newKey(), newKey()];
    truth = 1;
    for (const { read } of [one, two]) await Promise.all([read(key), read(other)]);
    await whileCut(one, async () => {
      truth = 2;
      for (const each of [key, ...Array.from({ length: 1_500 }, newKey)]) await one.cache.forget({ keys: [each] });
    });
    await eventually(async () => (await one.read(key)) === 2 && (await two.read(key)) === 2);
    await one.keeps();
    await one.cache.forget({ keys: [key] });
    // They were too many to be told one by one, so everything was forgotten; and that stays so.
    expect(await two.read(other)).toBe(2);
  });
});

it('as long as Redis does not take what has changed, it is not believed', async () => {
  const [one, two] = [await open(), await open()];
  const key = newKey();
  truth = 1;
  for (const { read } of [one, two]) await read(key);
  const mayPublish = (rule: '+publish' | '-publish') => admin.commands.call('ACL', 'SETUSER', 'default', rule);
  onTestFinished(() => void mayPublish('+publish'));
  await mayPublish('-publish');
  truth = 2;
  await one.cache.forget({ keys: [key] });
  for (let n = 0; n < 20; n++) expect(await one.read(key)).toBe(2);
  await mayPublish('+publish');
  await eventually(async () => (await two.read(key)) === 2);
  await one.keeps();
});

describe('a process whose connection for messages is lost', () => {
  it('believes nothing from before, and hears again', async () => {
    const [one, two] = [await open(), await open()];
    const key = newKey();
    truth = 1;
    await one.read(key);
    await two.read(key);
    await admin.commands.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    truth = 2;
    await one.cache.forget({ keys: [key] });
    await eventually(async () => (await listening()).length === 2);
    expect(await two.read(key)).toBe(2);
    await Promise.all([one.keeps(), two.keeps()]);
    expect(await one.read(key)).toBe(2);
  });

  describe('and lost again while it asks since when it hears', () => {
    /** Its first question for the time is answered, or fails, when the test says so. */
    async function askingSince() {
      const process = await open();
      const { commands } = process.link;
      const time = commands.time.bind(commands);
      const first = Promise.withResolvers<void>();
      const asked = new Promise<void>((ask) => {
        commands.time = (async () => {
          commands.time = time;
          ask();
          await first.promise;
          return time();
        }) as typeof time;
      });
      await kill((await process.ear())!);
      await asked;
      return { ...process, answer: first.resolve, refuse: () => first.reject(new Error('late')) };
    }

    it('keeps nothing until it really does', async () => {
      const [one, two] = [await open(), await askingSince()];
      const key = newKey();
      // Two connections of each, and ours: those of earlier specs have gone.
      const clients = async () => ((await admin.commands.client('LIST')) as string).trim().split('\n').length;
      await eventually(async () => (await clients()) === 5);
      // Nobody gets in any more.
      const allow = (most: number) => admin.commands.config('SET', 'maxclients', most);
      onTestFinished(() => void allow(10_000));
      await allow(4);
      await kill((await two.ear())!);
      await eventually(async () => (await listening()).length === 1);
      two.answer();
      for (let n = 0; n < 3; n++) await two.link.commands.ping();
      for (truth = 1; truth < 5; truth++) {
        await one.cache.forget({ keys: [key] });
        expect(await two.read(key)).toBe(truth);
      }
      await allow(10_000);
      await two.keeps();
    });

    it('keeps the next connection, whatever comes of the question', async () => {
      const two = await askingSince();
      await kill((await two.ear())!);
      await two.keeps();
      const ear = await two.ear();
      two.refuse();
      for (let n = 0; n < 3; n++) await two.link.commands.ping();
      expect(await two.ear()).toBe(ear);
    });
  });
});

it('a Redis that is emptied while all connections stay is filled again, and forgets as before', async () => {
  const [one, two] = [await open(), await open()];
  const [key, listed, group] = [newKey(), newKey(), newKey()];
  const read = async () => [
    ...(await Promise.all([one, two].map((each) => each.read(key)))),
    ...(await Promise.all([one, two].map((each) => each.read(listed, [group])))),
  ];
  await admin.commands.flushall();
  truth = 1;
  expect(await read()).toEqual([1, 1, 1, 1]);
  await one.cache.forget({ groups: [group] });
  expect(await read()).toEqual([1, 1, 1, 1]);
  // A load that is under way meanwhile is not kept.
  let finish = (): void => {};
  const late = newKey();
  const loading = one.cache.through(
    { ...kept, key: late },
    () => new Promise<number>((resolve) => (finish = () => resolve(1))),
  );
  await eventually(async () => (await admin.commands.exists(`banyan:cache:lease:${late}`)) === 1);
  await admin.commands.flushall();
  truth = 2;
  await one.cache.forget({ keys: [key, late], groups: [group] });
  finish();
  expect(await loading).toBe(1);
  await eventually(async () => expect(await read()).toEqual([2, 2, 2, 2]));
  expect([await one.read(late), await two.read(late)]).toEqual([2, 2]);
  truth = 3;
  expect(await read()).toEqual([2, 2, 2, 2]);
  await two.cache.forget({ keys: [key], groups: [group] });
  await eventually(async () => expect(await read()).toEqual([3, 3, 3, 3]));
});
