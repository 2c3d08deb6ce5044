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
  /** A real process, because signals and exit codes are the matter. It runs the TypeScript sources as they are. */
  async function run(
    steps: string,
    signal: (pid: number) => Promise<void>,
  ): Promise<{ code: number | null; out: string }> {
    const source = `
      import { gracefulShutdown } from '${import.meta.dirname}/shutdown.ts';
      const shutdown = gracefulShutdown({ timeoutMs: 5_000 });
      setInterval(() => undefined, 1_000);
      ${steps}
      process.stdout.write('up\\n');`;
    const child = spawn(process.execPath, ['--import', LOADER, '--input-type=module', '-e', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let out = '';
    child.stdout.on('data', (chunk) => (out += chunk));
    await expect.poll(() => out, { timeout: 20_000 }).toContain('up');
    const exit = new Promise<number | null>((resolve) => child.once('exit', resolve));
    await signal(child.pid!);
    return { code: await exit, out };
  }

  it('ends with 0 after one Ctrl-C, also when it is delivered twice', async () => {
    const { code, out } = await run(
      `shutdown.hook('work', 'slow', () => new Promise((r) => setTimeout(r, 300)).then(() => process.stdout.write('finished\\n')));`,
      async (pid) => {
        process.kill(pid, 'SIGINT');
        await pause(100);
        process.kill(pid, 'SIGINT');
      },
    );
    expect(out).toContain('finished');
    expect(code).toBe(0);
  });

  it('exits at once at a second signal', async () => {
    const start = performance.now();
    const { code } = await run(
      `shutdown.hook('traffic', 'hangs', () => new Promise(() => undefined));`,
      async (pid) => {
        process.kill(pid, 'SIGTERM');
        await pause(700);
        process.kill(pid, 'SIGTERM');
      },
    );
    expect(code).toBe(143);
    expect(performance.now() - start).toBeLessThan(20_000);
  });

  it('logs an error nobody caught, redacted, and ends with 1', async () => {
    const { code, out } = await run(`setTimeout(() => { throw new Error('lost ada@example.com') }, 50);`, () =>
      Promise.resolve(),
    );
    expect(code).toBe(1);
    expect(out).toContain('"level":"fatal"');
    expect(out).toContain('lost [redacted]');
  });
});
