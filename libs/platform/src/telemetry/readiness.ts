import { reasonOf } from '@banyan/kernel';
import { redactText } from './redaction.js';

export interface CheckResult {
  name: string;
  status: 'ok' | 'failed';
  ms: number;
  detail?: string;
}

export interface ReadinessReport {
  status: 'ready' | 'failed' | 'starting' | 'stopping';
  checks: CheckResult[];
  /** What does not work and is not needed to serve: `nats: no connection`. Left out when there is nothing. */
  degraded?: string[];
}

interface Check {
  run: () => unknown;
  timeoutMs: number;
  running: Promise<CheckResult> | undefined;
}

/**
 * Whether this process wants traffic. It starts unready, is opened once when everything is up, and goes back before
 * the first connection is refused at shutdown.
 */
export class Readiness {
  readonly #checks = new Map<string, Check>();
  readonly #degraded = new Map<string, () => string | undefined>();
  #phase: 'starting' | 'open' | 'stopping' = 'starting';

  /**
   * A condition for being ready; it fails by throwing or by taking longer than `timeoutMs`. The name is shown and
   * unique: registering it again replaces the check. Returns a function that removes it.
   */
  check(name: string, run: () => unknown, { timeoutMs = 1_000 }: { timeoutMs?: number } = {}): () => void {
    const check: Check = { run, timeoutMs, running: undefined };
    this.#checks.set(name, check);
    return () => {
      if (this.#checks.get(name) === check) this.#checks.delete(name);
    };
  }

  /**
   * Something that this process can serve without, for a while: `told` says what is wrong with it now, or undefined. It is
   * shown and changes nothing: a process taken out of service for a broker that is away would take the shop with it.
   * Names are unique: registering one again replaces it. Returns a function that removes it.
   */
  degraded(name: string, told: () => string | undefined): () => void {
    this.#degraded.set(name, told);
    return () => {
      if (this.#degraded.get(name) === told) this.#degraded.delete(name);
    };
  }

  /** Everything is started; from here the checks decide. */
  open(): void {
    this.#phase = 'open';
  }

  /** Takes no new traffic from here, whatever the checks say. */
  stop(): void {
    this.#phase = 'stopping';
  }

  async report(): Promise<ReadinessReport> {
    const checks = await Promise.all([...this.#checks].map(([name, check]) => result(name, check)));
    const degraded = [...this.#degraded].flatMap(([name, told]) => {
      const fault = told();
      return fault === undefined ? [] : [redactText(`${name}: ${fault}`)];
    });
    const facts = { checks, ...(degraded.length > 0 && { degraded }) };
    if (this.#phase !== 'open') return { status: this.#phase, ...facts };
    return { status: checks.every(({ status }) => status === 'ok') ? 'ready' : 'failed', ...facts };
  }
}

/** A check that hangs is asked once, however many probes come: a stuck database must not collect connections. */
function result(name: string, check: Check): Promise<CheckResult> {
  check.running ??= run(name, check).finally(() => {
    check.running = undefined;
  });
  return check.running;
}

async function run(name: string, { run, timeoutMs }: Check): Promise<CheckResult> {
  const start = performance.now();
  const ms = (): number => Math.round(performance.now() - start);
  let timer: NodeJS.Timeout | undefined;
  try {
    await Promise.race([
      (async () => run())(),
      new Promise((_resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
      }),
    ]);
    return { name, status: 'ok', ms: ms() };
  } catch (error) {
    const detail = redactText(reasonOf(error));
    return { name, status: 'failed', ms: ms(), detail };
  } finally {
    clearTimeout(timer);
  }
}

/** The process's readiness. */
export const readiness = new Readiness();
