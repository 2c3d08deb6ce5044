import { spawn } from 'node:child_process';
import { afterEach, describe, expect, it } from 'vitest';
import { configureLogs } from './log.js';
import { Readiness } from './readiness.js';
import { gracefulShutdown, type ShutdownOptions } from './shutdown.js';

/** Lets a plain Node process import the TypeScript sources, so that these specs need no build. */
const LOADER = `data:text/javascript,${encodeURIComponent(`
  import { createRequire, registerHooks } from 'node:module';
  const { transformFileSync } = createRequire('${import.meta.filename}')('@swc/core');
  registerHooks({
    resolve: (name, context, next) =>
      context.parentURL?.endsWith('.ts') && name.startsWith('.') ? next(name.replace(/js$/, 'ts'), context) : next(name, context),
    load: (url, context, next) =>
      url.endsWith('.ts')
        ? { format: 'module', shortCircuit: true, source: transformFileSync(new URL(url).pathname).code }
        : next(url, context),
  });
`)}`;

configureLogs({ service: 'spec', level: 'silent' });
const exits: number[] = [];
const before = new Map(
  ['SIGTERM', 'SIGINT', 'uncaughtException'].map((name) => [name, process.listeners(name as NodeJS.Signals)]),
);
afterEach(() => {
  exits.length = 0;
  for (const [name, listeners] of before) {
    for (const listener of process.listeners(name as NodeJS.Signals)) {
      if (!listeners.includes(listener)) process.off(name, listener);
    }
  }
});

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const make = (options: ShutdownOptions = {}) =>
  gracefulShutdown({ exit: (code) => exits.push(code), readiness: new Readiness(), ...options });

describe('a shutdown', () => {
  it('goes unready first, then runs the phases in order, once', async () => {
    const readiness = new Readiness();
    readiness.open();
    const shutdown = make({ readiness });
    const order: string[] = [];
    shutdown.hook('state', 'pool', () => order.push('pool'));
    shutdown.hook('work', 'relay', () => order.push('relay'));
    shutdown.hook('traffic', 'app', async () => {
      order.push((await readiness.report()).status);
      await pause(20);
      order.push('app');
    });
    shutdown.hook('telemetry', 'spans', () => order.push('spans'));
    shutdown.hook('work', 'taken back', () => order.push('never'))();
    await Promise.all([shutdown.now('a'), shutdown.now('b')]);
    expect(order).toEqual(['stopping', 'app', 'relay', 'pool', 'spans']);
    expect(exits).toEqual([0]);
  });

  it('lets neither a hook that hangs nor one that fails keep the others from running', async () => {
    const shutdown = make({ timeoutMs: 30 });
    const order: string[] = [];
    shutdown.hook('traffic', 'hangs', () => new Promise(() => undefined));
    shutdown.hook('work', 'fails', () => {
      throw new Error('no');
    });
    shutdown.hook('state', 'postgres', () => order.push('postgres'));
    await shutdown.now('x');
    expect(order).toEqual(['postgres']);
    expect(exits).toEqual([1]);
  });
});

describe('a process', () => {
  /**
   * A real process, because signals and exit codes are the matter. It runs the TypeScript sources as they are. It gets
   * the `signals` one after the other: the next when it has heard the one before, `apartMs` later by its own clock.
   */
  async function run(
    steps: string,
    signals: NodeJS.Signals[] = [],
    apartMs = 0,
  ): Promise<{ code: number | null; out: string }> {
    const source = `
      import { gracefulShutdown } from '${import.meta.dirname}/shutdown.ts';
      const shutdown = gracefulShutdown({ timeoutMs: 60_000 });
      setInterval(() => undefined, 1_000);
      let heard = 0;
      const twice = Promise.withResolvers();
      performance.now = () => heard * ${apartMs};
      for (const signal of ['SIGINT', 'SIGTERM'])
        process.on(signal, () => {
          process.stdout.write('heard ' + ++heard + '\\n');
          if (heard === 2) twice.resolve();
        });
      ${steps}
      process.stdout.write('up\\n');`;
    const child = spawn(process.execPath, ['--import', LOADER, '--input-type=module', '-e', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let out = '';
    child.stdout.on('data', (chunk) => (out += chunk));
    // With its last words.
    const end = new Promise<number | null>((resolve) => child.once('close', resolve));
    const says = (text: string) => expect.poll(() => out, { timeout: 30_000 }).toContain(text);
    await says('up');
    for (const [n, signal] of signals.entries()) {
      if (n > 0) await says(`heard ${n}`);
      child.kill(signal);
    }
    return { code: await end, out };
  }

  it('ends with 0 after one Ctrl-C, also when it is delivered twice', async () => {
    const { code, out } = await run(
      `shutdown.hook('traffic', 'slow', () => twice.promise.then(() => process.stdout.write('finished\\n')));`,
      ['SIGINT', 'SIGINT'],
      100,
    );
    expect(out).toContain('finished');
    expect(code).toBe(0);
  });

  it('exits at once at a second signal', async () => {
    // At the end of its time, a minute later, it would be 1.
    const { code } = await run(
      `shutdown.hook('traffic', 'hangs', () => new Promise(() => undefined));`,
      ['SIGTERM', 'SIGTERM'],
      700,
    );
    expect(code).toBe(143);
  });

  it('logs an error nobody caught, redacted, and ends with 1', async () => {
    const { code, out } = await run(`setTimeout(() => { throw new Error('lost ada@example.com') }, 50);`);
    expect(code).toBe(1);
    expect(out).toContain('"level":"fatal"');
    expect(out).toContain('lost [redacted]');
  });
});
