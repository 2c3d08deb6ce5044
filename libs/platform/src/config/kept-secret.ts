import { randomBytes } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * A secret that nobody has set: made on first use and kept as `<stateDir>/<name>` (mode 0600). Processes that ask at
 * once get the same one. It binds to this machine: with more than one, set the secret instead.
 */
export function keptSecret(stateDir: string, name: string): string {
  const path = join(stateDir, name);
  const kept = read(path);
  if (kept) return kept;
  mkdirSync(stateDir, { recursive: true });
  const fresh = `${path}.${randomBytes(6).toString('hex')}`;
  writeFileSync(fresh, `${randomBytes(32).toString('base64url')}\n`, { mode: 0o600, flag: 'wx' });
  try {
    linkSync(fresh, path); // takes the name with the whole content in it, or finds that another process has
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    rmSync(fresh, { force: true });
  }
  const secret = read(path);
  if (!secret) throw new Error(`${path} is empty: delete it, or set the secret in the environment`);
  return secret;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
