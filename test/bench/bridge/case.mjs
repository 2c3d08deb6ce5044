// Our bridge alone in a process: from a prepared stream until the target holds what is waited for.
import pg from 'pg';
import { runStream } from '@banyan/replication';

const { stream, done, natsUrl } = JSON.parse(process.env.BENCH_CASE);
const client = new pg.Client({ connectionString: stream.target });
await client.connect();
const nats =
  natsUrl &&
  (await (
    await import('@banyan/messaging/nats')
  ).Nats.connect({ servers: [natsUrl], tls: {} }, { name: 'bench', patienceMs: 2_000 }));
const log = nats && { broker: nats, stream: 'bench', subject: 'bench.log', maxBytes: 2 << 30, publish: true };
const stop = new AbortController();
const cpu = process.cpuUsage();
const from = performance.now();
const ended = runStream(stream, { signal: stop.signal, log, onProblem: (error) => console.error(error) });
while ((await client.query(done)).rowCount === 0) await new Promise((resolve) => setTimeout(resolve, 10));
const ms = performance.now() - from;
const { user, system } = process.cpuUsage(cpu);
stop.abort();
await ended;
await client.end();
await nats?.close();
process.send({ ms, cpuMs: (user + system) / 1000 });
process.disconnect();
