import { streamName } from '@banyan/extraction/protocol';
import { type Stream, dropStream, prepareStream, streamState } from '@banyan/replication';
import { afterAll, expect, inject, it } from 'vitest';
import { Pair } from './pair.js';

/* Slots belong to the whole server: what two installations on one have in common is all but the names of their databases. */
const pairs: Pair[] = [];
afterAll(async () => {
  for (const pair of pairs) await pair.drop();
});

async function installation(): Promise<Record<'there' | 'back', Stream>> {
  const pair = await Pair.on(inject('adminUrl'));
  pairs.push(pair);
  await pair.onBoth('create schema shared; create table shared.thing (id int primary key)');
  const { monolith, service } = pair.urls;
  return {
    there: { name: streamName('shared', 'monolith', monolith), source: monolith, target: service, schema: 'shared' },
    back: { name: streamName('shared', 'service', service), source: service, target: monolith, schema: 'shared' },
  };
}

it('two installations on one server carry the same context, and one that goes takes nothing of the other', async () => {
  const [one, two] = [await installation(), await installation()];
  for (const stream of [one.there, one.back, two.there, two.back])
    await prepareStream(stream, { backfill: stream === one.there || stream === two.there });
  await dropStream(one.there);
  await dropStream(one.back);
  expect((await streamState(one.there)).state).toBe('absent');
  for (const stream of [two.there, two.back]) expect(await streamState(stream)).toMatchObject({ state: 'prepared' });
  // A slot begins only when every transaction of the server has ended, those of other specs among them.
}, 120_000);
