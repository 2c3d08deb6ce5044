import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises';
import { eventually, startRedis } from '@banyan/testing';
import { afterEach, expect, it, onTestFinished, vi } from 'vitest';
import { RedisLink } from './index.js';

let links: RedisLink[] = [];
afterEach(() => {
  for (const link of links) link.close();
  links = [];
});

const linkTo = (url: string): RedisLink => {
  const link = new RedisLink(url);
  links.push(link);
  return link;
};

/** What comes of asking, or `late` if that moment, counted from here by the same clock, comes before. */
const askedBefore = (moment: () => Promise<unknown>, { commands }: RedisLink): Promise<string> =>
  Promise.race([
    commands.get('x').then(
      () => 'answered',
      () => 'failed',
    ),
    moment().then(() => 'late'),
  ]);

async function server(config?: string) {
  const redis = await startRedis({ config });
  onTestFinished(() => redis.stop());
  return redis;
}

it('a Redis that is away is no reason not to start; what is asked meanwhile fails at once', async () => {
  const redis = await server();
  await redis.kill();
  const link = linkTo(redis.url);
  await link.start();
  expect(link.up).toBe(false);
  expect(await askedBefore(() => nextTurn(), link)).toBe('failed');
  await redis.restart();
  await eventually(() => link.up);
  await eventually(async () => (await link.commands.set('x', '1')) === 'OK');
});

it('refused credentials end the start with a line that names them, without the password', async () => {
  const redis = await server('requirepass the-right-one');
  const at = (user: string) => redis.url.replace('//', `//${user}@`);
  const says = async (url: string) => {
    // It waits for an answer as long as that takes, and not for a second.
    const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now());
    return linkTo(url)
      .start()
      .then(
        () => 'started',
        (error: Error) => error.message,
      )
      .finally(() => clock.mockRestore());
  };
  const where = `Redis at 127.0.0.1:${redis.port}`;
  expect(await says(at(':s3cret-and-wrong'))).toMatch(new RegExp(`^${where} refuses what REDIS_URL says: WRONGPASS`));
  expect(await says(redis.url)).toMatch(new RegExp(`^${where} refuses what REDIS_URL says: .*NOAUTH`));
  expect(await says(`${at(':the-right-one')}/99`)).toMatch(/\/99 refuses what REDIS_URL says: ERR/);
  expect(await says(at(':the-right-one'))).toBe('started');
});

it('a host that nobody knows is away', async () => {
  const link = linkTo('redis://nobody.invalid:6379');
  await link.start();
  expect(link.up).toBe(false);
});

it('a Redis that hangs is away within a second or two, and back when it answers', async () => {
  const redis = await server();
  const link = linkTo(redis.url);
  await link.start();
  await eventually(() => link.up);
  const goOn = redis.pause();
  expect(await askedBefore(() => pause(2_000), link)).toBe('failed');
  await eventually(() => !link.up);
  goOn();
  await eventually(() => link.up);
  await eventually(() => link.commands.get('x').then((value) => value === null));
});

it('tells whenever Redis has come back', async () => {
  const redis = await server();
  const link = linkTo(redis.url);
  await link.start();
  await eventually(() => link.up);
  let ups = 0;
  link.onUp(() => ups++);
  expect(ups).toBe(1);
  await redis.restart();
  await eventually(() => ups > 1);
});
