import { type Config, keptSecret } from '@banyan/platform/config';
import { EmbeddedPostgres, ensureContextDatabases } from '@banyan/platform/database';
import { contracts } from '@banyan/contracts';
import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { childEnvironment } from './child-environment.js';
import { CommandError } from './exit.js';
import type { Charge } from './guard.js';
import { type Hold, hold, released } from './hold.js';
import { ManagedProcess, type ProcessSpec } from './managed-process.js';
import { claimPort, freePort } from './ports.js';
import { type Runtime, type RunningProcess, removeRuntime, writeRuntime } from './runtime-file.js';
import type { Screen } from './screen.js';

/** The workspace: this file is apps/cli/dist/supervisor.js in it. */
const workspace = join(import.meta.dirname, '../../..');

/**
 * Everything that one installation runs: Postgres (unless DATABASE_URL names one), the payment provider's simulator
 * (unless PSP_URL names a provider) and the monolith. Starts them, keeps them running, says in runtime.json what runs
 * where, and stops them.
 */
export class Supervisor {
  private readonly children: ManagedProcess[] = [];
  private postgres: EmbeddedPostgres | undefined;
  private postgresStart: Promise<EmbeddedPostgres> | undefined;
  private databases: Record<string, string> = {};
  private publicPort = 0;
  private guardInput: Writable | undefined;
  private held: Hold | undefined;
  private stopping: Promise<void> | undefined;
  private writing: Promise<void> = Promise.resolve();

  constructor(
    private readonly config: Config,
    private readonly screen: Screen,
  ) {}

  /** Resolves when a request would be answered. Throws CommandError before anything was started, or stops it all. */
  async start(): Promise<void> {
    const { config } = this;
    await mkdir(config.stateDir, { recursive: true });
    const held = await hold(config.stateDir, 'supervisor');
    if ('heldBy' in held)
      throw new CommandError(
        'ALREADY_RUNNING',
        `Banyan already runs on ${config.stateDir}, as process ${held.heldBy}:`,
        'stop that one first, or set BANYAN_STATE_DIR to another folder.',
      );
    this.held = held;
    await released(config.stateDir, 'guard');

    const [port, internalPort, pspPort] = await Promise.all([
      claimPort('PORT', config.http.host, config.http.port),
      claimPort('INTERNAL_PORT', config.http.internalHost, config.http.internalPort),
      // Nobody outside needs to know where the simulator is, so any port will do.
      claimPort('PSP_PORT', config.psp.host, config.psp.port).catch(freePort),
    ]);
    this.publicPort = port;
    this.checkNotStopping();
    this.guardInput = startGuard();
    try {
      const secrets = webhookSecrets(config);
      const simulator = config.payments.pspUrl
        ? Promise.resolve()
        : this.step('payment simulator', () => this.startChild(this.simulator(pspPort, secrets)));
      // Nobody waits for the simulator while Postgres starts; its failure is told below.
      simulator.catch(() => {});
      const adminUrl = await this.step('database', () => this.startDatabase());
      await this.step('monolith', async () => {
        const psp = config.payments.pspUrl ?? `http://127.0.0.1:${pspPort}`;
        await this.startChild(this.monolith(adminUrl, internalPort, psp, secrets));
      });
      await simulator;
      for (const child of this.children) child.keepAlive();
      this.changed();
      await this.writing;
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  get urls(): { proxy: string; monolith: string } {
    const { host } = this.config.http;
    const url = `http://${['0.0.0.0', '::'].includes(host) ? '127.0.0.1' : host}:${this.publicPort}`;
    return { proxy: url, monolith: url };
  }

  /** The last started first: the app ends its work with its provider and its database still there. Safe to call again. */
  stop(): Promise<void> {
    this.stopping ??= (async () => {
      for (const child of this.children.toReversed()) await child.stop(this.stopLimitMs);
      // One that is just starting has to be up before it can be stopped.
      const postgres = await this.postgresStart?.catch(() => undefined);
      await postgres?.stop();
      await this.writing;
      await removeRuntime(this.config.stateDir);
      this.charge(true);
      this.guardInput?.end();
      this.held?.letGo();
    })();
    return this.stopping;
  }

  /** Does not wait for anybody to finish: the answer to a second Ctrl-C. */
  kill(): void {
    for (const child of this.children) child.kill();
  }

  private async step<T>(name: string, work: () => Promise<T>): Promise<T> {
    const from = performance.now();
    const result = await work();
    this.screen.tell({ event: 'step', name, ms: Math.round(performance.now() - from) });
    return result;
  }

  private async startDatabase(): Promise<string> {
    const { database, stateDir } = this.config;
    if (!database.url) await this.startPostgres();
    const adminUrl = database.url ?? (this.postgres as EmbeddedPostgres).localUrl;
    this.databases = await ensureContextDatabases({
      adminUrl,
      contexts: contracts.map(({ name }) => name),
      side: 'monolith',
      migrationsDir: join(workspace, 'migrations'),
      overrides: database.contextUrls,
    }).catch((error: Error) => {
      const next = database.url ? 'Look at DATABASE_URL.' : `Its log is ${stateDir}/postgres.log.`;
      throw new CommandError('FAILED', `The database is not usable: ${error.message}.`, next);
    });
    return adminUrl;
  }

  private async startPostgres(): Promise<void> {
    this.checkNotStopping();
    this.postgresStart = EmbeddedPostgres.start({
      stateDir: this.config.stateDir,
      onExit: () => void this.restartPostgres(),
    });
    this.postgres = await this.postgresStart;
    this.changed();
  }

  /** The app answers 503 meanwhile, and finds its way back by itself. */
  private async restartPostgres(): Promise<void> {
    for (let waitMs = 250; !this.stopping; waitMs = Math.min(waitMs * 2, 10_000)) {
      this.screen.tell({ event: 'notice', message: `Postgres ended by itself; it starts again in ${waitMs} ms.` });
      await sleep(waitMs);
      if (this.stopping) return;
      try {
        await this.postgres?.stop(); // lets go of the data of the one that ended
        await this.startPostgres();
        this.screen.tell({ event: 'notice', message: 'Postgres is back.' });
        return;
      } catch (error) {
        this.screen.tell({ event: 'notice', message: (error as Error).message });
      }
    }
  }

  private checkNotStopping(): void {
    if (this.stopping) throw new CommandError('FAILED', 'Stopped while it started.', '');
  }

  private async startChild(spec: ProcessSpec): Promise<void> {
    this.checkNotStopping();
    const child = new ManagedProcess(spec, this.screen, () => this.changed());
    this.children.push(child);
    await child.start().catch((error: Error) => {
      throw new CommandError(
        'FAILED',
        `${error.message} while it started:`,
        `what it said is above and in ${spec.log}.`,
      );
    });
  }

  private simulator(port: number, secrets: Record<string, string>): ProcessSpec {
    return {
      ...this.common('psp-simulator'),
      ports: [port],
      env: {
        ...this.commonEnv(),
        ...secrets,
        PSP_PORT: String(port),
        PSP_WEBHOOK_URL: `${this.urls.monolith}/v1/webhooks/psp`,
      },
    };
  }

  private monolith(
    databaseUrl: string,
    internalPort: number,
    pspUrl: string,
    secrets: Record<string, string>,
  ): ProcessSpec {
    const { seed } = this.config;
    return {
      ...this.common('monolith'),
      ports: [this.publicPort, internalPort],
      env: {
        ...this.commonEnv(),
        ...secrets,
        PORT: String(this.publicPort),
        INTERNAL_PORT: String(internalPort),
        DATABASE_URL: databaseUrl,
        // Decided here: the child always has a DATABASE_URL and cannot tell whose.
        BANYAN_SEED: seed ? 'on' : 'off',
        PSP_URL: pspUrl,
      },
    };
  }

  private common(role: 'monolith' | 'psp-simulator') {
    return {
      role,
      main: join(workspace, 'apps', role, 'dist/main.js'),
      log: join(this.config.stateDir, 'logs', `${role}.log`),
    };
  }

  private commonEnv(): Record<string, string> {
    const { stateDir } = this.config;
    return { BANYAN_STATE_DIR: stateDir, NODE_COMPILE_CACHE: join(stateDir, 'compile-cache'), NO_COLOR: '1' };
  }

  /** Tells runtime.json and the guard what runs now. */
  private changed(): void {
    if (this.stopping) return;
    this.charge(false);
    const processes: RunningProcess[] = this.children.flatMap(({ pid, spec: { role, ports } }) =>
      pid === undefined ? [] : [{ role, pid, ports }],
    );
    if (this.postgres) processes.push({ role: 'postgres', pid: this.postgres.pid, ports: [this.postgres.port] });
    const runtime: Runtime = {
      version: 1,
      processes,
      urls: this.urls,
      databases: Object.fromEntries(
        Object.entries(this.databases).map(([name, url]) => [name, { monolith: this.forOthers(url) }]),
      ),
    };
    this.writing = this.writing.then(() => writeRuntime(this.config.stateDir, runtime));
  }

  /** What a child may take: its running requests, and 12 s for the phases after them (platform/telemetry, shutdown). */
  private get stopLimitMs(): number {
    return this.config.http.shutdownMs + 13_000;
  }

  /** What runtime.json says of a database: others may not know how to name a socket file in a URL. */
  private forOthers(databaseUrl: string): string {
    const url = new URL(databaseUrl);
    if (this.postgres) url.searchParams.delete('host');
    return url.href;
  }

  private charge(done: boolean): void {
    const charge: Charge = {
      stateDir: this.config.stateDir,
      pids: this.children.flatMap(({ pid }) => pid ?? []),
      postgresPid: this.postgres?.pid,
      limitMs: this.stopLimitMs,
      done,
    };
    this.guardInput?.write(`${JSON.stringify(charge)}\n`);
  }
}

/** Both ends of a webhook sign with the same secret; the app would make the same one by itself. */
function webhookSecrets({ stateDir, payments, shipping }: Config): Record<string, string> {
  return {
    PSP_WEBHOOK_SECRET: payments.pspWebhookSecret ?? keptSecret(stateDir, 'psp-webhook-secret'),
    CARRIER_WEBHOOK_SECRET: shipping.carrierWebhookSecret ?? keptSecret(stateDir, 'carrier-webhook-secret'),
  };
}

function startGuard(): Writable {
  const guard = spawn(process.execPath, [join(import.meta.dirname, 'guard.js')], {
    env: childEnvironment({}),
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
    windowsHide: true,
  });
  guard.on('error', () => {});
  guard.stdin.on('error', () => {}); // a guard that was killed is no reason to stop the shop
  guard.unref();
  return guard.stdin;
}
