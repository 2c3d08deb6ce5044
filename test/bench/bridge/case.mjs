// Our bridge alone in a process: from a prepared stream until the target holds what is waited for.
import pg from 'pg';
import { runStream } from '@banyan/replication';

const { stream, done } = JSON.parse(process.env.BENCH_CASE);
const client = new pg.Client({ connectionString: stream.target });
await client.connect();
const stop = new AbortController();
const cpu = process.cpuUsage();
const from = performance.now();
const ended = runStream(stream, { signal: stop.signal, onProblem: (error) => console.error(error) });
while ((await client.query(done)).rowCount === 0) await new Promise((resolve) => setTimeout(resolve, 10));
const ms = performance.now() - from;
const { user, system } = process.cpuUsage(cpu);
stop.abort();
await ended;
await client.end();
process.send({ ms, cpuMs: (user + system) / 1000 });
process.disconnect();
