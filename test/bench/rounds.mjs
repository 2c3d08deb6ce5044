import { fork } from 'node:child_process';
import { median } from '../support/report.mjs';

/**
 * For a process that measures one case and nothing else: runs `work(n)`, which makes n operations one after the other,
 * often enough to be warm, then in rounds, and sends what one operation cost.
 */
export async function measureRounds(work, { n = 100_000, rounds = 7 } = {}) {
  await work(Math.min(n, 20_000));
  await work(n);
  const wall = [];
  const cpu = [];
  for (let round = 0; round < rounds; round++) {
    const used = process.cpuUsage();
    const from = process.hrtime.bigint();
    await work(n);
    wall.push(Number(process.hrtime.bigint() - from) / n);
    const { user, system } = process.cpuUsage(used);
    cpu.push(((user + system) * 1_000) / n);
  }
  process.send({ wall: median(wall), best: Math.min(...wall), cpu: median(cpu) });
  process.disconnect();
}

/** One case in a process of its own, so that no case profits from or suffers by another one's compiled code. */
export function runCase(script, name, { cwd, env = {}, execArgv = [], limitMs = 90_000 } = {}) {
  return new Promise((done, fail) => {
    let result;
    let said = '';
    const child = fork(script, [name], {
      cwd,
      execArgv,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
    child.stderr.on('data', (chunk) => (said = (said + chunk).slice(-4_000)));
    child.on('message', (message) => (result = message));
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      if (result) done(result);
      else fail(new Error(`${name} ended with ${signal ?? code}\n${said}`));
    });
  });
}
