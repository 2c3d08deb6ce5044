import type { Config } from '@banyan/platform/config';
import { ensureContextDatabases, roleUrl } from '@banyan/platform/database/server';
import { contracts } from '@banyan/contracts';
import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { childEnvironment } from './child-environment.js';
import { DatabaseServer } from './database-server.js';
import { CommandError, sentence } from './exit.js';
import type { Charge } from './guard.js';
import { type Hold, hold, released } from './hold.js';
import { ManagedProcess, type ProcessSpec } from './managed-process.js';
import { Ports } from './ports.js';
import { ProcessSpecs, migrationsDir } from './process-specs.js';
import { type Runtime, type RunningProcess, removeRuntime, writeRuntime } from './runtime-file.js';
import type { Screen } from './screen.js';
import { WantedProcesses } from './wanted-processes.js';

/** How long `ready` waits for what the control plane wants to run: the shop is up without it, in part. */
const WANTED_LIMIT_MS = 20_000;

/**
 * Everything that one installation runs: Postgres (unless DATABASE_URL names one), the payment provider's simulator
 * (unless PSP_URL names a provider), the monolith, the proxy, the control plane, and the services and bridges that the
 * control plane wants. Starts them, keeps them running, says in runtime.json what runs where, and stops them.
 */
export class Supervisor {
  private readonly ports = new Ports();
  private readonly database: DatabaseServer;
  private readonly wanted: WantedProcesses;
  private specs: ProcessSpecs | undefined;
  private simulator: ManagedProcess | undefined;
  private controlPlanes: ManagedProcess[] = [];
  private monoliths: ManagedProcess[] = [];
  private proxies: ManagedProcess[] = [];
  private readonly databases: Runtime['databases'] = {};
  private guardInput: Writable | undefined;
  private held: Hold | undefined;
  private stopping: Promise<void> | undefined;
  private writing: Promise<void> = Promise.resolve();

  constructor(
    private readonly config: Config,
    private readonly screen: Screen,
  ) {
    this.database = new DatabaseServer(config, screen, () => this.changed());
    this.wanted = new WantedProcesses({
      screen,
      ports: this.ports,
      portsFrom: config.extraction.servicePortsFrom,
      // A replication slot has one reader.
      instancesOf: (role) => (role === 'service' ? config.instances.services : 1),
      specOf: ({ role, context, settings }, ports, instance) =>
        this.assigned[role]({ context, instance }, settings, ports),
      changed: () => this.changed(),
      tell: (message) => this.controlPlanes.forEach((child) => child.send(message)),
      stopLimitMs: this.stopLimitMs,
    });
  }

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

    this.specs = await ProcessSpecs.assign(config, this.ports);
    this.checkNotStopping();
    this.guardInput = startGuard();
    try {
      await this.startAll(this.specs);
      for (const child of this.main) child.keepAlive();
      this.changed();
      await this.writing;
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  get urls(): ProcessSpecs['urls'] {
    return this.assigned.urls;
  }

  /**
   * The proxy first: it finishes the running requests, for which everything else has to be there. Then the control plane,
   * before it sees the rest go and tries to help. Safe to call again.
   */
  stop(): Promise<void> {
    this.stopping ??= (async () => {
      const limitMs = this.stopLimitMs;
      this.wanted.freeze();
      const stopAll = (children: ManagedProcess[]) => Promise.all(children.map((child) => child.stop(limitMs)));
      await stopAll(this.proxies);
      await stopAll(this.controlPlanes);
      await Promise.all([stopAll(this.monoliths), this.wanted.stop('service')]);
      await this.wanted.stop('bridge');
      await this.simulator?.stop(limitMs);
      await this.database.stop();
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
    this.wanted.kill();
    for (const child of this.main) child.kill();
  }

  /** As much at once as two cores take: Postgres and the simulator, then the rest, of which the monolith is the slowest. */
  private async startAll(specs: ProcessSpecs): Promise<void> {
    const starts: Promise<unknown>[] = [];
    const begin = (...children: ManagedProcess[]): Promise<unknown> => {
      const started = Promise.all(
        children.map((child) => this.step(child.name.replace('-', ' '), () => this.startChild(child))),
      );
      started.catch(() => {}); // told below, when all have been begun
      starts.push(started);
      return started;
    };
    if (!this.config.payments.pspUrl) void begin((this.simulator = this.child(specs.simulator())));
    const adminUrl = await this.step('database', () => this.startDatabase());
    this.monoliths = specs.monoliths(adminUrl).map((spec) => this.child(spec));
    this.controlPlanes = specs
      .controlPlanes(adminUrl)
      .map((spec) => this.child(spec, (message) => this.wanted.receive(message)));
    this.proxies = specs.proxies().map((spec) => this.child(spec));
    void begin(...this.monoliths);
    await begin(...this.controlPlanes);
    // The proxies go by what they heard last until they hear more, and by now everybody may listen elsewhere.
    void begin(...this.proxies);
    await Promise.all(starts);
    // The control plane has said by now what it wants.
    if (this.wanted.wanted.length > 0) await this.step('services and bridges', () => this.untilSettled());
  }

  private async untilSettled(): Promise<void> {
    const missing = await this.wanted.settled(WANTED_LIMIT_MS);
    if (missing.length === 0) return;
    const names = missing.join(', ');
    const message = `Not ready after ${WANTED_LIMIT_MS / 1000} s: ${names}. Banyan goes on trying; npx banyan status says more.`;
    this.screen.tell({ event: 'notice', message });
  }

  private async step<T>(name: string, work: () => Promise<T>): Promise<T> {
    const from = performance.now();
    const result = await work();
    this.screen.tell({ event: 'step', name, ms: Math.round(performance.now() - from) });
    return result;
  }

  private async startDatabase(): Promise<string> {
    this.checkNotStopping();
    const { database, stateDir } = this.config;
    const adminUrl = await this.database.start();
    const urls = await ensureContextDatabases({
      adminUrl,
      contexts: contracts.map(({ name }) => name),
      side: 'monolith',
      migrationsDir,
      overrides: database.contextUrls,
    }).catch((error: Error) => {
      const next = database.url ? 'Look at DATABASE_URL.' : `Its log is ${stateDir}/postgres.log.`;
      throw new CommandError('FAILED', `The database is not usable: ${sentence(error.message)}`, next);
    });
    for (const [context, url] of Object.entries(urls))
      this.databases[context] = { monolith: this.database.forOthers(url) };
    return adminUrl;
  }

  private child(spec: ProcessSpec, message?: (message: unknown) => void): ManagedProcess {
    return new ManagedProcess(spec, this.screen, { changed: () => this.changed(), message });
  }

  private async startChild(child: ManagedProcess): Promise<void> {
    this.checkNotStopping();
    await child.start().catch((error: Error) => {
      const next = `what it said is above and in ${child.spec.log}.`;
      throw new CommandError('FAILED', `${error.message} while it started:`, next);
    });
  }

  private checkNotStopping(): void {
    if (this.stopping) throw new CommandError('FAILED', 'Stopped while it started.', '');
  }

  private get assigned(): ProcessSpecs {
    if (!this.specs) throw new Error('Nothing has been started yet');
    return this.specs;
  }

  /** Those that always run. */
  private get main(): ManagedProcess[] {
    const { proxies, monoliths, controlPlanes, simulator } = this;
    return [...proxies, ...monoliths, ...controlPlanes, ...(simulator ? [simulator] : [])];
  }

  /** Tells runtime.json and the guard what runs now. */
  private changed(): void {
    if (this.stopping) return;
    this.charge(false);
    const processes: RunningProcess[] = [...this.main, ...this.wanted.running].flatMap(
      ({ pid, spec: { role, context, ports } }) => (pid === undefined ? [] : [{ role, context, pid, ports }]),
    );
    const postgres = this.database.process;
    if (postgres) processes.push({ role: 'postgres', pid: postgres.pid, ports: [postgres.port] });
    this.noteServiceDatabases();
    const runtime: Runtime = { version: 1, processes, urls: this.urls, databases: structuredClone(this.databases) };
    this.writing = this.writing.then(() => writeRuntime(this.config.stateDir, runtime));
  }

  /** As its role sees it, like the monolith's. Kept when the service is gone: its database is not. */
  private noteServiceDatabases(): void {
    for (const { context, settings } of this.wanted.wanted) {
      const adminUrl = settings.BANYAN_DATABASE_URL_SERVICE ?? settings.DATABASE_URL;
      if (!adminUrl) continue;
      // Passwords of roles derive from the admin's; without one there are no roles.
      const url = new URL(adminUrl).password ? roleUrl(adminUrl, context) : adminUrl;
      (this.databases[context] ??= {}).service = this.database.forOthers(url);
    }
  }

  /** What a child may take: its running requests, and 12 s for the phases after them (platform/telemetry, shutdown). */
  private get stopLimitMs(): number {
    return this.config.http.shutdownMs + 13_000;
  }

  private charge(done: boolean): void {
    const charge: Charge = {
      stateDir: this.config.stateDir,
      pids: [...this.main, ...this.wanted.running].flatMap(({ pid }) => pid ?? []),
      postgresPid: this.database.process?.pid,
      limitMs: this.stopLimitMs,
      done,
    };
    this.guardInput?.write(`${JSON.stringify(charge)}\n`);
  }
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
