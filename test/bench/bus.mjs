import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { figure, median, table } from '../support/report.mjs';
import { peersOf } from './peers.mjs';
import { runCase } from './rounds.mjs';

const OURS = 'banyan bus: validated, traced, timed, with a deadline';
const PEER = 'cqrs, validated, in AsyncLocalStorage';
const here = (file) => join(import.meta.dirname, file);

/** What one call within the process costs. */
export async function benchBus({ repeat, peers }) {
  const ours = { script: here('bus/case.mjs') };
  const cases = new Map([
    ['a function, validated', ours],
    [OURS, ours],
  ]);
  if (peers) {
    const folder = await peersOf('bus');
    const env = {
      BENCH_ROUNDS: pathToFileURL(here('rounds.mjs')).href,
      BENCH_TOY: pathToFileURL(here('bus/toy.mjs')).href,
    };
    const peer = { script: join(folder, 'case.mjs'), cwd: folder, env };
    cases.set(PEER, peer).set('cqrs alone', peer);
  }
  const results = new Map([...cases.keys()].map((name) => [name, []]));
  // They take turns, so that what else the machine does hits all of them alike.
  for (let turn = 0; turn < repeat; turn++)
    for (const [name, { script, ...options }] of cases) results.get(name).push(await runCase(script, name, options));

  const of = (name, what) => median(results.get(name)?.map((result) => result[what]) ?? []);
  const rows = [...results.keys()].map((name) => [
    name,
    figure(of(name, 'wall'), 0),
    figure(Math.min(...results.get(name).map(({ best }) => best)), 0),
    figure(of(name, 'cpu'), 0),
    figure(of(name, 'cpu') / of(OURS, 'cpu')),
  ]);
  return {
    title: 'In-process call',
    notes: [`Median of ${repeat} processes of 7 rounds of 100,000 calls, one after the other.`],
    tables: [table(['case', 'ns a call', 'best', 'CPU ns', 'CPU, ours = 1'], rows)],
  };
}
