import { headers } from '@nats-io/nats-core';
import { afterEach, expect, it } from 'vitest';
import { TestBroker, patiently, transaction } from './broker.spec-support.js';
import { type Abandoned, LogFollower } from './follower.js';
import { PgOutput } from './pgoutput.js';
import { LogStream, PLACE_HEADER, type Place, type SharedLog, placeText } from './shared-log.js';

const nats = new TestBroker();
const open = new Set<LogFollower>();
afterEach(() => {
  for (const follower of open) follower.close();
  open.clear();
});

const SOURCE = '7000000000000000001/slot';

class Writer {
  constructor(readonly log: SharedLog) {}

  async put(content: Buffer, from: number, to: number | undefined, part = 0, source = SOURCE): Promise<void> {
    const head = headers();
    const end = to === undefined ? undefined : BigInt(to);
    const place: Place = { from: BigInt(from), to: end, part, at: 1, source, timeline: 1 };
    head.set(PLACE_HEADER, placeText(place));
    await nats.client.publish(this.log.subject, content, { headers: head });
  }
}

async function logOf(name: string): Promise<Writer> {
  const log = nats.log(name);
  await patiently(async () => (await LogStream.open(log)).declare());
  return new Writer(log);
}

const tryToFollow = (log: SharedLog, mark: bigint, source = SOURCE, abandoned: Abandoned = new Map()) =>
  patiently(() => LogFollower.open(log, mark, source, abandoned));

async function follow({ log }: Writer, mark: number, abandoned?: Abandoned): Promise<LogFollower> {
  const follower = await tryToFollow(log, BigInt(mark), SOURCE, abandoned);
  if (typeof follower === 'string') throw new Error(follower);
  open.add(follower);
  return follower;
}

/** What comes up to `to`: the texts of the transactions. */
async function texts(follower: LogFollower, to: number): Promise<string[]> {
  const output = new PgOutput();
  const found: string[] = [];
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; await follower.wait(100))
    for (let item = follower.take(); item; item = follower.take()) {
      if ('lsn' in item && item.lsn === BigInt(to)) return found;
      const event = 'payload' in item ? output.decode(item.payload) : undefined;
      if (event?.kind === 'message') found.push(event.content);
    }
  throw new Error(`Nothing came up to ${to}; before it: ${found.join(', ')}`);
}

it('begins at the mark, wherever that is', async () => {
  const writer = await logOf('marks');
  await writer.put(Buffer.alloc(0), 10, 10);
  for (let i = 1; i < 40; i++)
    await writer.put(
      Buffer.concat([transaction(BigInt(i * 10 + 5), `a${i}`), transaction(BigInt(i * 10 + 10), `b${i}`)]),
      i * 10,
      i * 10 + 10,
    );
  expect(await texts(await follow(writer, 370), 400)).toEqual(['a37', 'b37', 'a38', 'b38', 'a39', 'b39']);
  // In the middle of a message: what is applied already is left out.
  expect(await texts(await follow(writer, 385), 400)).toEqual(['b38', 'a39', 'b39']);
  expect((await texts(await follow(writer, 10), 400)).length).toBe(78);
  // In between, as the server tells where it is; and behind everything.
  expect(await texts(await follow(writer, 397), 400)).toEqual(['b39']);
  const waiting = await follow(writer, 400);
  await writer.put(transaction(420n, 'new'), 400, 420);
  expect(await texts(waiting, 420)).toEqual(['new']);
  expect(await tryToFollow(writer.log, 9n)).toContain('lacks what comes after the mark 0/9');
});

it('leaves out a transaction that was published in part only, whether it was met before or not', async () => {
  const writer = await logOf('parts');
  const whole = transaction(20n, 'x'.repeat(100));
  await writer.put(transaction(10n, 'one'), 0, 10);
  await writer.put(whole.subarray(0, 50), 10, undefined, 0);
  const abandoned: Abandoned = new Map();
  const first = await follow(writer, 0, abandoned);
  expect(await texts(first, 10)).toEqual(['one']);
  await writer.put(whole.subarray(0, 40), 10, undefined, 0);
  await writer.put(whole.subarray(40, 41), 10, undefined, 1);
  await writer.put(whole.subarray(41), 10, 20, 2);
  await expect(texts(first, 20)).rejects.toThrow('anew from its beginning');
  expect(await texts(await follow(writer, 0, abandoned), 20)).toEqual(['one', 'x'.repeat(100)]);
  expect(await texts(await follow(writer, 10), 20)).toEqual(['x'.repeat(100)]);
});

it('sees a hole, a message of somebody else, and a stream that was emptied', async () => {
  const writer = await logOf('holes');
  await writer.put(transaction(10n, 'one'), 0, 10);
  const follower = await follow(writer, 0);
  expect(await texts(follower, 10)).toEqual(['one']);
  await writer.put(transaction(30n, 'three'), 20, 30);
  await expect(texts(follower, 30)).rejects.toThrow('does not go on at 0/A');
  expect(await tryToFollow(writer.log, 10n)).toContain('lacks');
  expect(await texts(await follow(writer, 20), 30)).toEqual(['three']);

  const last = await follow(writer, 30);
  await nats.client.publish(writer.log.subject, 'hello');
  await expect(texts(last, 40)).rejects.toThrow('no bridge has written');

  await (await nats.manager()).streams.purge(writer.log.stream);
  await expect(follow(writer, 30)).rejects.toThrow('Nobody has published');
});

it('takes nothing from another source, whose positions look alike', async () => {
  const writer = await logOf('sources');
  const other = '7000000000000000002/slot';
  await writer.put(transaction(10n, 'one'), 0, 10);
  const follower = await follow(writer, 0);
  expect(await texts(follower, 10)).toEqual(['one']);
  await writer.put(transaction(20n, 'of another'), 10, 20, 0, other);
  await expect(texts(follower, 20)).rejects.toThrow('goes on with another source');
  expect(await tryToFollow(writer.log, 10n)).toContain('lacks what comes after the mark 0/A');
  const theirs = await tryToFollow(writer.log, 10n, other);
  open.add(theirs as LogFollower);
  expect(await texts(theirs as LogFollower, 20)).toEqual(['of another']);
});
