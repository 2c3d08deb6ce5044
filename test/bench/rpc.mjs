import { join } from 'node:path';
import { startNats } from '@banyan/testing/servers';
import { figure, median, quantile, table } from '../support/report.mjs';
import { runCase } from './rounds.mjs';

const here = (file) => join(import.meta.dirname, file);
const cases = {
  'banyan over TCP': true,
  'banyan over NATS': true,
  'NATS request alone, JSON both ways': false,
  'Nest over NATS, its own client': false,
};

/** One context asking another one in another process: a query that touches no database. */
export async function benchRpc({ repeat, peers, quick }) {
  const size = { calls: quick ? 5_000 : 40_000, atOnce: 64, singles: quick ? 200 : 2_000 };
  const broker = await startNats();
  try {
    const results = new Map(Object.keys(cases).flatMap((name) => (cases[name] || peers ? [[name, []]] : [])));
    for (let turn = 0; turn < repeat; turn++)
      for (const [name, runs] of results) {
        const given = { ...size, natsUrl: broker.url, brokerPid: broker.pid };
        runs.push(await runCase(here('rpc/case.mjs'), name, { env: { BENCH_CASE: JSON.stringify(given) } }));
      }
    const of = (name, what) => median(results.get(name).map((result) => result[what]));
    const rows = [...results].map(([name, runs]) => {
      const waits = runs.flatMap((result) => result.waits);
      return [
        name,
        figure(of(name, 'perSecond'), 0),
        figure(quantile(waits, 0.5) * 1_000, 0),
        figure(quantile(waits, 0.99) * 1_000, 0),
        figure(of(name, 'callerUs')),
        figure(of(name, 'serverUs')),
        figure(of(name, 'brokerUs')),
        figure(of('banyan over TCP', 'perSecond') / of(name, 'perSecond')),
      ];
    });
    return {
      title: 'Call to another process',
      notes: [
        `${size.calls} calls, ${size.atOnce} at once; then ${size.singles} one after the other (p50, p99). Medians of ${repeat} runs.`,
        'Ours are whole calls: envelope, token, guard, schemas, deadline, trace, metrics; the others are nothing but the message.',
      ],
      tables: [
        table(
          ['call', 'calls/s', 'p50 us', 'p99 us', 'caller CPU us', 'server CPU us', 'broker CPU us', 'TCP / it'],
          rows,
        ),
      ],
    };
  } finally {
    await broker.stop();
  }
}
