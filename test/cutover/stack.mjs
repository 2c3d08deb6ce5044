import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { isAlive, root } from '../support/program.mjs';

export const CONTEXTS = ['identity', 'catalog', 'inventory', 'orders', 'payments', 'shipping', 'notifications'];

const banyan = join(root, 'apps/cli/bin/banyan.mjs');
const ANY_PORT = [
  'PORT',
  'INTERNAL_PORT',
  'MONOLITH_PORT',
  'RPC_PORT',
  'CONTROL_PORT',
  'SERVICE_PORTS_FROM',
  'PSP_PORT',
];
/* Parcels and payments that come to their end within a run, and logins by the dozen from one address. */
const SETTINGS = {
  BANYAN_RATE_LIMITS: 'off',
  BANYAN_CARRIER_DISPATCH_MS: '500',
  BANYAN_CARRIER_DELIVERY_MS: '500',
  PSP_TIMEOUT_MS: '400',
  PSP_HANG_MS: '5000',
  PSP_3DS_AUTO_MS: '300',
};

/**
 * `banyan up` as its users run it, on a folder and ports of its own, with an embedded Postgres and the seeded shop; with
 * `engines` as a fleet on those.
 */
export class Stack {
  /** What `banyan up` said, a value a line. */
  lines = [];
  stateDir = mkdtempSync(join(tmpdir(), 'banyan-cutover-'));
  failPoints = join(this.stateDir, 'fail-points');

  constructor({ settings = {}, engines } = {}) {
    this.engines = engines;
    mkdirSync(this.failPoints);
    const ports = Object.fromEntries(ANY_PORT.map((name) => [name, '0']));
    // A clean environment: the caller's settings must not leak into what is measured or broken.
    this.env = {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      TZ: 'UTC',
      NODE_ENV: 'production',
      LOG_LEVEL: 'warn',
      BANYAN_STATE_DIR: this.stateDir,
      BANYAN_FAIL_POINTS: this.failPoints,
      ...ports,
      ...SETTINGS,
      ...engines?.settings,
      ...settings,
    };
  }

  /** Resolves, with the milliseconds it took, when the shop answers. */
  async start() {
    const from = performance.now();
    this.up = spawn(process.execPath, [banyan, 'up', '--json'], {
      cwd: root,
      env: this.env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((ready, fail) => {
      createInterface({ input: this.up.stdout }).on('line', (line) => {
        const happening = JSON.parse(line);
        this.lines.push({ at: Date.now(), ...happening });
        if (happening.event === 'ready') ready();
        if (happening.ok === false) fail(new Error(line));
      });
      this.up.once('exit', (code, signal) => fail(new Error(`banyan up ended with ${signal ?? code}`)));
    });
    return performance.now() - from;
  }

  get runtime() {
    return JSON.parse(readFileSync(join(this.stateDir, 'runtime.json'), 'utf8'));
  }

  /** Of every proxy, as a load balancer in front of them has it. */
  get urls() {
    return this.#urlsOf('proxy');
  }

  /** Of every control plane, any of which takes an order. */
  get controlUrls() {
    return this.#urlsOf('control-plane');
  }

  #urlsOf(role) {
    return this.processes(role).map(({ ports }) => `http://127.0.0.1:${ports[0]}`);
  }

  get operatorToken() {
    return readFileSync(join(this.stateDir, 'operator-token'), 'utf8').trim();
  }

  /** What the payment provider has really been asked to do. */
  get journal() {
    return join(this.stateDir, 'psp', 'journal.jsonl');
  }

  /** The superuser's URL of a side's database. */
  adminUrl(side, context) {
    const { password, port } = JSON.parse(readFileSync(join(this.stateDir, 'postgres.json'), 'utf8'));
    const database = side === 'service' ? `banyan_${context}` : 'postgres';
    return `postgres://postgres:${password}@127.0.0.1:${port}/${database}`;
  }

  /** The processes of this role that run now. */
  processes(role, context) {
    return this.runtime.processes.filter((each) => each.role === role && (!context || each.context === context));
  }

  /** The first process of this role that runs now; undefined when none does. */
  pidOf(role, context) {
    return this.processes(role, context)[0]?.pid;
  }

  /** Do so many processes of this role say that they can serve? */
  async areReady(role, count, context) {
    const running = this.processes(role, context);
    if (running.length < count) return false;
    const ready = running.map(({ ports }) =>
      fetch(`http://127.0.0.1:${ports[1]}/readyz`, { signal: AbortSignal.timeout(1_000) }).then(
        async (answer) => (await answer.text()) && answer.ok,
        () => false,
      ),
    );
    return (await Promise.all(ready)).every(Boolean);
  }

  /** Sends a signal to a process of the stack, the first of its kind by default; answers its number, undefined when it did not run. */
  signal(signal, role, context, pid = this.pidOf(role, context)) {
    try {
      if (pid !== undefined) process.kill(pid, signal);
      return pid;
    } catch {
      return undefined; // it has just gone
    }
  }

  /** The next process that comes to this step kills itself there, once. */
  arm(failPoint) {
    writeFileSync(join(this.failPoints, failPoint), '');
  }

  isArmed(failPoint) {
    return existsSync(join(this.failPoints, failPoint));
  }

  disarm(failPoint) {
    rmSync(join(this.failPoints, failPoint), { force: true });
  }

  /** A `banyan` command on this stack: its exit code and what it printed, a value a line. */
  async cli(...args) {
    const child = spawn(process.execPath, [banyan, ...args, '--json'], { cwd: root, env: this.env });
    let [said, complained] = ['', ''];
    child.stdout.on('data', (chunk) => (said += chunk));
    child.stderr.on('data', (chunk) => (complained += chunk));
    const [code] = await once(child, 'close');
    const lines = said
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line));
    return { code, lines, last: lines.at(-1), complained };
  }

  /** Processes that ended although nobody had asked them to, as `banyan up` tells it. */
  get crashes() {
    return this.lines.filter(({ event, message }) => event === 'notice' && / ended by itself/.test(message));
  }

  /** How often it has told that one ended, be it before it was ready. */
  get ends() {
    const isEnd = ({ event, message }) => event === 'notice' && / ended (?:by itself )?\(/.test(message);
    return this.lines.filter(isEnd).length;
  }

  /**
   * Ctrl-C. Answers the exit code of `banyan up`, and with it the processes that it has left behind: 0 is well. `keepLogs`
   * says where to leave what the processes wrote. Safe to call again.
   */
  stop({ keepLogs } = {}) {
    return (this.#stopped ??= this.#stop(keepLogs));
  }
  #stopped;

  async #stop(keepLogs) {
    // It is taken away at the end.
    const processes = existsSync(join(this.stateDir, 'runtime.json')) ? this.runtime.processes : [];
    let code = this.up?.exitCode;
    if (this.up && code === null && this.up.signalCode === null) {
      // What was stopped with SIGSTOP would keep everybody waiting.
      for (const { pid } of processes)
        try {
          process.kill(pid, 'SIGCONT');
        } catch {
          // It has just gone.
        }
      const gone = once(this.up, 'exit');
      this.up.kill('SIGINT');
      [code] = await gone;
    }
    const left = processes.filter(({ pid }) => isAlive(pid));
    for (const { pid } of left) process.kill(pid, 'SIGKILL');
    if (keepLogs) {
      rmSync(keepLogs, { recursive: true, force: true });
      mkdirSync(keepLogs, { recursive: true });
      for (const name of ['logs', 'postgres.log', 'routing'])
        if (existsSync(join(this.stateDir, name)))
          cpSync(join(this.stateDir, name), join(keepLogs, name), { recursive: true });
      writeFileSync(join(keepLogs, 'up.jsonl'), this.lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    }
    rmSync(this.stateDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 200 });
    return left.length === 0 ? code : `${code} and left ${left.map(({ role, pid }) => `${role} ${pid}`).join(', ')}`;
  }
}

/** Asks every `everyMs` until the answer is true-ish, which it answers; undefined when that took longer than `limitMs`. */
export async function until(question, limitMs, everyMs = 50) {
  for (const deadline = performance.now() + limitMs; ; await sleep(everyMs)) {
    const answer = await question();
    if (answer) return answer;
    if (performance.now() > deadline) return undefined;
  }
}
