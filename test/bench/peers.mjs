import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../support/program.mjs';

/**
 * Puts the programs of `test/bench/peers/<name>` beside what they compare with, in `.banyan/peers/<name>`, so that
 * nothing of it comes into the workspace; installs on the first run, and when a version has changed. Answers the folder.
 */
export async function peersOf(name) {
  const from = join(import.meta.dirname, 'peers', name);
  const folder = join(root, '.banyan', 'peers', name);
  mkdirSync(folder, { recursive: true });
  const wanted = readFileSync(join(from, 'package.json'), 'utf8');
  for (const file of readdirSync(from)) copyFileSync(join(from, file), join(folder, file));
  const stamp = join(folder, 'installed.json');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return folder;
  console.error(`Installing what ${name} is compared with into ${folder} …`);
  await install(folder);
  writeFileSync(stamp, wanted);
  return folder;
}

async function install(folder) {
  const args = ['install', '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error'];
  // npm tells its scripts where they are by the environment, and an npm below it believes that.
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('npm_')));
  const child = spawn('npm', args, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  const code = await new Promise((done, fail) => child.on('error', fail).on('close', done));
  if (code !== 0) throw new Error(`npm install in ${folder} failed:\n${said.trim()}`);
}
