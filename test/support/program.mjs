import { fork } from 'node:child_process';
import { mkdirSync, openSync, closeSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

export const root = resolve(import.meta.dirname, '../..');

export function isAlive(pid) {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

const START_LIMIT_MS = 60_000;

/** One program as a real process. It has to say by an IPC message when it is ready, and ends when we are gone. */
export class Program {
  #child;
  /** Called with what it ended by, when nobody had asked for that. */
  onCrash = () => {};

  /** `main` is a path in the workspace; `log` takes what it says on stdout and stderr. */
  constructor({ main, env = {}, log, args = [], execArgv = [] }) {
    this.main = join(root, main);
    this.log = log;
    this.args = args;
    this.execArgv = execArgv;
    // A clean environment: the caller's settings must not leak into what is measured or broken.
    this.env = { PATH: process.env.PATH, HOME: process.env.HOME, TZ: 'UTC', NODE_ENV: 'production', ...env };
    mkdirSync(dirname(log), { recursive: true });
  }

  get pid() {
    return this.#child?.pid;
  }

  get running() {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Resolves, with the milliseconds it took, when the program has said that it is ready; false when it was killed before. */
  async start() {
    const from = performance.now();
    const file = openSync(this.log, 'a');
    const child = fork(this.main, this.args, {
      cwd: root,
      env: this.env,
      execArgv: this.execArgv,
      stdio: ['ignore', file, file, 'ipc'],
    });
    closeSync(file);
    this.#child = child;
    child.asked = false;
    child.on('error', () => {});
    child.once('exit', (code, signal) => {
      if (!child.asked) this.onCrash(signal ?? code);
    });
    return new Promise((done, fail) => {
      const timer = setTimeout(() => fail(new Error(`${this.main} was not ready in time`)), START_LIMIT_MS);
      child.once('message', (message) => {
        clearTimeout(timer);
        done({ ms: performance.now() - from, message });
      });
      child.once('exit', (code, signal) => {
        clearTimeout(timer);
        if (child.asked) done(false);
        else fail(new Error(`${this.main} ended with ${signal ?? code} while it started:\n${this.#lastWords()}`));
      });
    });
  }

  /** `kill -9`. Resolves when the process is gone. */
  kill() {
    return this.#end('SIGKILL');
  }

  /** Asks it to stop, and kills it when that takes longer than `limitMs`. Answers what it ended with: 0 is well. */
  async stop(limitMs = 25_000) {
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), limitMs);
    try {
      return await this.#end('SIGTERM');
    } finally {
      clearTimeout(timer);
    }
  }

  /** Sends a message and resolves with the next one that comes back. */
  ask(message) {
    const child = this.#child;
    return new Promise((done, fail) => {
      const gone = () => fail(new Error(`${this.main} is gone`));
      child.once('exit', gone);
      child.once('message', (answer) => {
        child.removeListener('exit', gone);
        done(answer);
      });
      child.send(message, (error) => error && gone());
    });
  }

  #end(signal) {
    const child = this.#child;
    if (!this.running) return Promise.resolve(child?.exitCode ?? child?.signalCode);
    child.asked = true;
    return new Promise((done) => {
      child.once('exit', (code, by) => done(code ?? by));
      child.kill(signal);
    });
  }

  #lastWords() {
    return readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-15).join('\n');
  }
}
