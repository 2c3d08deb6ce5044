import { flushLogs, rootLogger } from './log.js';
import { readiness as processReadiness, type Readiness } from './readiness.js';

/**
 * The phases of a shutdown, in their order. `traffic`: stop taking requests and finish the running ones (`app.close()`
 * belongs here). `work`: relays, jobs, timers. `state`: pools, an embedded database. `telemetry`: what reports on the rest.
 */
export type ShutdownPhase = 'traffic' | 'work' | 'state' | 'telemetry';

const PHASES: readonly ShutdownPhase[] = ['traffic', 'work', 'state', 'telemetry'];

/** Each phase has a limit of its own: a request that hangs must not keep an embedded database from being stopped. */
const LIMITS_MS: Record<ShutdownPhase, number> = { traffic: 10_000, work: 5_000, state: 5_000, telemetry: 2_000 };

/** One Ctrl-C arrives twice where npm or a parent passes it on; only a later signal means impatience. */
const SAME_SIGNAL_MS = 500;

export interface ShutdownOptions {
  /** How long running requests may take, in ms. */
  timeoutMs?: number;
  limitsMs?: Partial<Record<ShutdownPhase, number>>;
  readiness?: Readiness;
  exit?: (code: number) => void;
}

export interface GracefulShutdown {
  /** Runs `fn` in that phase, together with the phase's other hooks. Returns a function that takes it back. */
  hook(phase: ShutdownPhase, name: string, fn: () => unknown): () => void;
  /** Starts the shutdown as a signal does; the process ends with `code` (1 where a hook fails or is out of time). */
  now(reason: string, code?: number): Promise<void>;
}

/**
 * Ends the process in order on SIGTERM, SIGINT, or an error nobody caught. Readiness goes first, then the phases. A
 * second signal exits at once. It replaces `app.enableShutdownHooks()`, which would race with it: the hook that calls
 * `app.close()` runs Nest's own lifecycle.
 */
export function gracefulShutdown(options: ShutdownOptions = {}): GracefulShutdown {
  const limits = {
    ...LIMITS_MS,
    ...(options.timeoutMs === undefined ? {} : { traffic: options.timeoutMs }),
    ...options.limitsMs,
  };
  const exit = options.exit ?? ((code) => process.exit(code));
  const hooks = new Set<{ phase: ShutdownPhase; name: string; fn: () => unknown }>();
  const log = rootLogger().child({ context: 'Shutdown' });
  let running: Promise<void> | undefined;
  let startedAt = 0;

  const run = async (reason: string, code: number): Promise<void> => {
    log.info({ msg: 'stopping', reason });
    (options.readiness ?? processReadiness).stop();
    let clean = true;
    for (const phase of PHASES) {
      const due = [...hooks].filter((hook) => hook.phase === phase);
      clean = (await runPhase(phase, due, limits[phase], log)) && clean;
    }
    log.info({ msg: 'stopped', ms: Math.round(performance.now() - startedAt) });
    flushLogs();
    exit(clean ? code : code || 1);
  };

  const now = (reason: string, code = 0): Promise<void> => {
    if (!running) startedAt = performance.now();
    return (running ??= run(reason, code));
  };

  const onSignal = (signal: NodeJS.Signals): void => {
    if (!running) return void now(signal);
    if (performance.now() - startedAt < SAME_SIGNAL_MS) return;
    log.warn({ msg: 'second signal: exiting at once', signal });
    flushLogs();
    exit(signal === 'SIGINT' ? 130 : 143);
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  // Node would print the error as it is, with whatever is in its message, past the redaction.
  process.on('uncaughtException', (err) => {
    log.fatal({ msg: 'uncaught error', err });
    void now('uncaught error', 1);
  });

  return {
    now,
    hook(phase, name, fn) {
      const hook = { phase, name, fn };
      hooks.add(hook);
      return () => void hooks.delete(hook);
    },
  };
}

async function runPhase(
  phase: ShutdownPhase,
  hooks: readonly { name: string; fn: () => unknown }[],
  limitMs: number,
  log: ReturnType<typeof rootLogger>,
): Promise<boolean> {
  const open = new Set(hooks.map(({ name }) => name));
  let clean = true;
  const all = hooks.map(async ({ name, fn }) => {
    try {
      await fn();
    } catch (err) {
      clean = false;
      log.error({ msg: 'shutdown hook failed', phase, hook: name, err });
    }
    open.delete(name);
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, limitMs);
  });
  await Promise.race([Promise.all(all), late]);
  clearTimeout(timer);
  if (open.size > 0) log.error({ msg: 'shutdown hooks out of time', phase, hooks: [...open], limitMs });
  return clean && open.size === 0;
}
