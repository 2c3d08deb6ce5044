// Contexts leave the running shop and come back while a crowd buys: nothing may fail, be lost or be there twice.
//   npm run test:cutover                            10 cycles of inventory, one of each other context
//   npm run test:cutover -- --contexts=orders,payments --cycles=3 --rate=200 --seed=42
//   npm run test:cutover -- --faults                the same with kill -9 at every step and at random instants
//   npm run test:cutover -- --engines               the same as a fleet on NATS, Redis and Unleash, which get killed too
//   npm run test:cutover -- --fleet                 a shortened one with as many processes, which get killed, and only Redis
//   npm run test:cutover -- --tour                  each context on an idle shop, by the command line
//   npm run test:cutover -- --canary                10,000 times: write, then read what was written
//   npm run test:cutover -- --short                 what `npm test` runs
import { join } from 'node:path';
import build from '../../tools/build.mjs';
import { Endings } from '../support/endings.mjs';
import { root } from '../support/program.mjs';
import { figure, options, sameAgain, table } from '../support/report.mjs';
import { CONTEXTS } from './stack.mjs';

const given = options(
  {
    seed: Math.floor(Math.random() * 2 ** 31),
    /** Cycles of inventory (in its absence: of the first context); the others make one each. */
    cycles: 10,
    contexts: CONTEXTS.join(),
    /** Requests a second: 200, or 80 for the thirty processes of `engines`. And how many customers they come from. */
    rate: 0,
    buyers: 60,
    /** How long each end is served from, ms. */
    dwell: 2_000,
    /** Do not wait for the evidence that the gates ask for: on a busy machine copies lag, and lag looks like a difference. */
    force: false,
    faults: false,
    /** On NATS, Redis and a real Unleash, with three monoliths, and two of everything else. */
    engines: false,
    /** Kills at random instants, and the mean time between two, ms. */
    kills: 30,
    every: 4_000,
    /** As many processes, and only Redis. */
    fleet: false,
    tour: false,
    canary: false,
    pairs: 10_000,
    short: false,
    /** One JSON value at the end, and nothing else on standard output. */
    json: false,
    build: true,
  },
  process.argv.slice(2),
);
given.rate ||= given.engines ? 80 : 200;
const began = performance.now();
const say = (text) => {
  const line = `${((performance.now() - began) / 1_000).toFixed(0).padStart(4)} s  ${text}`;
  if (given.json) console.error(line);
  else console.log(line);
};
if (given.build) await build();

const kinds = { tour: './tour.mjs', fleet: './fleet.mjs', canary: '../extraction/canary-consistency.mjs' };
const kind = Object.keys(kinds).find((name) => given[name]);
const { perform } = await import(kind ? kinds[kind] : './crossing.mjs');
say(`seed ${given.seed}`);
const endings = new Endings();
let performed;
try {
  performed = await perform({
    ...given,
    say,
    endings,
    logs: join(root, '.banyan', given.engines ? 'cutover-engines-logs' : 'cutover-logs'),
  });
} finally {
  await endings.end();
}

const { findings, rows, figures, logs } = performed;
const { verdicts, ok } = findings;
if (given.json) console.log(JSON.stringify({ ok, seed: given.seed, verdicts, figures }));
else {
  console.log(
    `\n${table(['what', 'figure'], [['seed', given.seed], ...rows, ['whole run, s', figure((performance.now() - began) / 1_000)]])}\n`,
  );
  for (const { sentence, violations } of verdicts) {
    console.log(`${violations.length === 0 ? 'holds ' : 'BROKEN'}  ${sentence}`);
    for (const violation of violations.slice(0, 20)) console.log(`          ${violation}`);
    if (violations.length > 20) console.log(`          … and ${violations.length - 20} more`);
  }
  const again = sameAgain(process.argv.slice(2), given.seed);
  if (!ok && logs) console.log(`\nThe logs are in ${logs}. Again: npm run test:cutover -- ${again}`);
}
process.exit(ok ? 0 : 1);
