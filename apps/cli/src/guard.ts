import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { hold } from './hold.js';
import { isAlive } from './is-alive.js';
import { removeRuntime } from './runtime-file.js';

/** What the supervisor tells its guard, a line each time something changed; `done` when it has stopped all by itself. */
export interface Charge {
  stateDir: string;
  pids: number[];
  postgresPid?: number;
  limitMs: number;
  done?: boolean;
}

/*
 * A process of its own, in a session of its own, that does nothing until the supervisor is gone. Killed with SIGKILL,
 * a supervisor cannot stop what it started: Postgres would stay for ever. The guard sees the end of its standard input
 * then, and stops the children, and after them Postgres. A new `banyan up` waits for it.
 */
let charge: Charge | undefined;
const input = createInterface({ input: process.stdin });
input.on('line', (line) => (charge = JSON.parse(line) as Charge));
input.on('close', () => void finish().finally(() => process.exit()));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

async function finish(): Promise<void> {
  if (!charge || charge.done) return;
  const { stateDir, postgresPid, limitMs } = charge;
  await hold(stateDir, 'guard');
  const left = charge.pids.filter(isAlive);
  for (const pid of left) signal(pid, 'SIGTERM');
  const deadline = Date.now() + limitMs;
  while (left.some(isAlive) && Date.now() < deadline) await sleep(20);
  for (const pid of left.filter(isAlive)) signal(pid, 'SIGKILL');
  while (left.some(isAlive)) await sleep(5);
  if (postgresPid !== undefined && isAlive(postgresPid)) {
    const { EmbeddedPostgres } = await import('@banyan/platform/database/server');
    const postgres = await EmbeddedPostgres.start({ stateDir, shared: true });
    await postgres.stop(); // unless somebody else holds it as well
  }
  await removeRuntime(stateDir);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has just gone.
  }
}
