import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Installation, initialise, isFile, locate } from './native-postgres.js';
import { type ProcessId, birthOf, exclusively, isAlive, thisProcess, worksIn } from './processes.js';

export interface EmbeddedPostgresOptions {
  /** Where the data, the log and the password live: `<stateDir>/postgres`, `postgres.log`, `postgres.json`. */
  stateDir: string;
  /** Preferred; another one is found when it is busy, and kept for later starts. 54329 by default. */
  port?: number;
  /** Several processes may use one server; the last to stop it ends it. By default a second one is refused. */
  shared?: boolean;
  /** More `name=value` settings; they win over ours. */
  settings?: readonly string[];
  /** Called when the server ends and was not told to. */
  onExit?: (error: EmbeddedPostgresError) => void;
}

/** The embedded server could not start, or went away; the message holds the end of its log. */
export class EmbeddedPostgresError extends Error {
  override readonly name = 'EmbeddedPostgresError';
}

/** `postgres.json`, mode 0600. */
interface State {
  password: string;
  port: number;
  dataDir?: string;
  settings?: string[];
  /** The processes that use the server now. */
  holders: ProcessId[];
}

interface Server extends ProcessId {
  port: number;
}

/** What Banyan needs of any server, beside room for its connections, and what suits a small one. */
export const serverSettings = [
  'listen_addresses=127.0.0.1',
  'wal_level=logical',
  'max_connections=200',
  'max_replication_slots=40',
  'max_wal_senders=40',
  // Two for every context; the default is 10 in all.
  'max_active_replication_origins=40',
  'max_slot_wal_keep_size=1GB',
  'shared_buffers=256MB',
  'timezone=UTC',
  'log_timezone=UTC',
];
const START_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 15_000;
const LOG_LIMIT_BYTES = 16 << 20;

/**
 * The Postgres that comes with `npm ci`, as a server for this project alone: on 127.0.0.1, with a password made once.
 *
 * Of the npm package only the binaries are used. Its own start() installs exit hooks that end the process, and its
 * server dies with Ctrl-C, before the app has finished its requests. Here the server has a process group of its own;
 * when whoever started it was killed, the next start finds it and takes it over.
 */
export class EmbeddedPostgres {
  private constructor(
    /** The superuser's URL. */
    readonly url: string,
    /**
     * The same through a socket file in the data folder, where it can be had: a query costs a third less CPU than through
     * TCP (35 against 53 us here). A reader that does not know the parameter `host` gets TCP.
     */
    readonly localUrl: string,
    readonly port: number,
    readonly pid: number,
    private readonly files: Files,
    private readonly ending: { told: boolean },
  ) {}

  /** Makes the cluster when there is none (about 2 s), then starts the server, or joins the one that runs on this data. */
  static async start(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
    const files = filesIn(resolve(options.stateDir));
    await mkdir(files.stateDir, { recursive: true });
    return exclusively(files.lock, async () => {
      const state = await readState(files, options.port ?? 54_329);
      if (state.holders.length > 0 && !options.shared)
        throw new EmbeddedPostgresError(
          `The Postgres in ${files.stateDir} is used by process ${state.holders.map(({ pid }) => pid).join(', ')}. ` +
            'Stop that process first.',
        );
      const installation = await locate(files.stateDir, state.dataDir);
      const { dataDir } = installation;
      if (state.dataDir === undefined) await forgetData(dataDir, files);
      if (!(await isFile(join(dataDir, 'PG_VERSION')))) {
        // The password first: killed between the two, the next start must be able to log in.
        await writeState(files, { ...state, dataDir });
        await initialise(installation, state.password).catch((error: Error & { stderr?: string }) => {
          throw new EmbeddedPostgresError(
            `Postgres could not be set up in ${dataDir}: ${error.stderr || error.message}`,
          );
        });
      }

      const socketDir = socketDirFor(dataDir);
      const settings = [...serverSettings, `unix_socket_directories=${socketDir}`, ...(options.settings ?? [])];
      const ending = { told: false };
      let server = await runningServer(dataDir);
      const outdated = state.settings?.join() !== settings.join();
      if (server && outdated && state.holders.length === 0) {
        await stopServer(server, dataDir);
        server = undefined;
      }
      if (server) await untilReady(dataDir, server, files.log, 0);
      else
        server = await launch(installation, settings, state.port, files.log, (error) => {
          if (!ending.told) options.onExit?.(error);
        });
      const { password } = state;
      await writeState(files, {
        password,
        port: server.port,
        dataDir,
        settings,
        holders: [...state.holders, await thisProcess()],
      });
      const url = `postgres://postgres:${password}@127.0.0.1:${server.port}/postgres`;
      const localUrl = socketDir ? `${url}?host=${encodeURIComponent(socketDir)}` : url;
      return new EmbeddedPostgres(url, localUrl, server.port, server.pid, files, ending);
    });
  }

  /** Ends the server (open sessions are cut, nothing committed is lost), unless other processes still use it. */
  async stop(): Promise<void> {
    if (this.ending.told) return;
    this.ending.told = true;
    await exclusively(this.files.lock, async () => {
      const state = await readState(this.files, this.port);
      const mine = state.holders.findIndex(({ pid }) => pid === process.pid);
      state.holders.splice(mine, mine < 0 ? 0 : 1);
      await writeState(this.files, state);
      const server = state.dataDir && state.holders.length === 0 ? await runningServer(state.dataDir) : undefined;
      if (server && state.dataDir) await stopServer(server, state.dataDir);
    });
  }
}

/** Where the socket file goes, or '': a path of more than 103 characters is none for a socket, and Windows has none. */
function socketDirFor(dataDir: string): string {
  const fits = join(dataDir, '.s.PGSQL.65535').length <= 103 && /^[\w./-]+$/.test(dataDir);
  return process.platform !== 'win32' && fits ? dataDir : '';
}

type Files = ReturnType<typeof filesIn>;
const filesIn = (stateDir: string) => ({
  stateDir,
  state: join(stateDir, 'postgres.json'),
  lock: join(stateDir, 'postgres.lock'),
  log: join(stateDir, 'postgres.log'),
});

async function readState(files: Files, port: number): Promise<State> {
  const text = await readFile(files.state, 'utf8').catch(() => undefined);
  if (text === undefined) return { password: randomBytes(24).toString('base64url'), port, holders: [] };
  const state = JSON.parse(text) as State;
  const alive = await Promise.all(state.holders.map(isAlive));
  return { ...state, holders: state.holders.filter((_, i) => alive[i]) };
}

async function writeState(files: Files, state: State): Promise<void> {
  const draft = `${files.state}.new`;
  await writeFile(draft, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  await rename(draft, files.state);
}

/**
 * Data without a state file. Outside the state folder it is what is left of a state folder that was deleted, so it
 * goes too. Inside, only the file with the password is lost: nobody but the owner may decide about the data.
 */
async function forgetData(dataDir: string, files: Files): Promise<void> {
  if (!(await isFile(join(dataDir, 'PG_VERSION')))) return;
  if (dataDir.startsWith(files.stateDir))
    throw new EmbeddedPostgresError(
      `${files.state} (it holds the password) is missing: restore it, or delete ${dataDir}.`,
    );
  const orphan = await runningServer(dataDir);
  if (orphan) await stopServer(orphan, dataDir);
  await rm(dataDir, { recursive: true });
}

/** What postmaster.pid says: line 1 pid, 4 port, 8 status. Written by the server, gone after a clean stop. */
async function postmasterFile(dataDir: string): Promise<{ pid: number; port: number; ready: boolean } | undefined> {
  const text = await readFile(join(dataDir, 'postmaster.pid'), 'utf8').catch(() => undefined);
  const lines = text?.split('\n') ?? [];
  return lines[0] ? { pid: Number(lines[0]), port: Number(lines[3]), ready: lines[7]?.trim() === 'ready' } : undefined;
}

/** The server that runs on this data now. A file left by a killed one, whose number another process has by now, is removed. */
async function runningServer(dataDir: string): Promise<Server | undefined> {
  const file = await postmasterFile(dataDir);
  const born = file && (await birthOf(file.pid));
  if (!file || born === undefined) return undefined;
  if (await worksIn(file.pid, dataDir)) return { pid: file.pid, port: file.port, born };
  await rm(join(dataDir, 'postmaster.pid'), { force: true });
  return undefined;
}

async function launch(
  { native, dataDir, account }: Installation,
  settings: readonly string[],
  preferredPort: number,
  log: string,
  onExit: (error: EmbeddedPostgresError) => void,
): Promise<Server> {
  const { size } = await stat(log).catch(() => ({ size: 0 }));
  if (size > LOG_LIMIT_BYTES) await rename(log, `${log}.1`);
  for (let attempt = 1; ; attempt++) {
    const port = await freePort(attempt === 1 ? preferredPort : 0);
    const file = await open(log, 'a');
    const from = (await file.stat()).size;
    const args = ['-D', dataDir, '-p', String(port), ...settings.flatMap((setting) => ['-c', setting])];
    const child = spawn(join(native, 'bin', 'postgres'), args, {
      ...account,
      cwd: '/',
      detached: true,
      stdio: ['ignore', file.fd, file.fd],
    });
    child.on('error', () => {}); // told as a missing pid below
    await file.close();
    child.unref();
    const server = { pid: child.pid ?? 0, port, born: (child.pid && (await birthOf(child.pid))) || '' };
    try {
      await untilReady(dataDir, server, log, from, child);
      child.once('exit', () => {
        void logTail(log, from).then((tail) => onExit(new EmbeddedPostgresError(`Postgres ended by itself.\n${tail}`)));
      });
      return server;
    } catch (error) {
      // A port taken in the meantime, or processes of a killed server that are still leaving: both pass.
      const passing = /could not bind|pre-existing shared memory block/.test((error as Error).message);
      if (!passing || attempt === 20) throw error;
      await sleep(250);
    }
  }
}

async function untilReady(
  dataDir: string,
  server: Server,
  log: string,
  from: number,
  child?: ChildProcess,
): Promise<void> {
  for (const deadline = Date.now() + START_LIMIT_MS; ; await sleep(10)) {
    const file = await postmasterFile(dataDir);
    if (file?.ready && file.pid === server.pid) return;
    const gone = child ? child.exitCode !== null || child.signalCode !== null || !child.pid : !(await isAlive(server));
    if (gone) throw new EmbeddedPostgresError(`Postgres did not start on ${dataDir}:\n${await logTail(log, from)}`);
    if (Date.now() > deadline) {
      if (child) await stopServer(server, dataDir);
      const limit = `${START_LIMIT_MS / 1000} s`;
      throw new EmbeddedPostgresError(`Postgres was not ready after ${limit}:\n${await logTail(log, from)}`);
    }
  }
}

/** SIGINT is Postgres's fast shutdown; SIGQUIT, when that hangs, its immediate one (the next start recovers from the log). */
async function stopServer(server: Server, dataDir: string): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    if (!(await isAlive(server)) || !(await worksIn(server.pid, dataDir))) return;
    process.kill(server.pid, signal);
    for (const deadline = Date.now() + STOP_LIMIT_MS; Date.now() < deadline; await sleep(10))
      if (!(await isAlive(server))) return;
  }
}

/** `port` when nothing listens there, else any free one. */
function freePort(port: number): Promise<number> {
  return new Promise((done, fail) => {
    const probe = createServer();
    probe.once('error', (error) => (port === 0 ? fail(error) : done(freePort(0))));
    probe.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      const address = probe.address();
      probe.close(() => done(typeof address === 'object' && address ? address.port : port));
    });
  });
}

async function logTail(log: string, from: number): Promise<string> {
  const text = await readFile(log).then(
    (bytes) => bytes.subarray(from).toString('utf8'),
    () => '',
  );
  return `${text.trimEnd().split('\n').slice(-15).join('\n')}\n(log: ${log})`;
}
