// Generates what is stale, compiles what is stale. `npm start` and `npm test` run it first.
//
// Nx knows best what has to be compiled, but needs 1.5 s to find out that nothing has; a second start has to be up in 6 s
// altogether. So a stamp of every source file (path, size, time of change) is kept, and Nx is asked only when it
// differs: 25 ms for 300 files.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import generateClients from './generate.mjs';

const root = resolve(import.meta.dirname, '..');
const stamp = join(root, '.nx/build-stamp');

export default async function build() {
  await generateClients();
  const projects = globSync(
    ['libs/*/package.json', 'libs/contexts/*/package.json', 'apps/*/package.json', 'proxy/package.json'],
    {
      cwd: root,
    },
  )
    .map((path) => path.slice(0, -'/package.json'.length))
    .filter((path) => existsSync(join(root, path, 'src')));
  const before = fingerprint(projects);
  const compiled = projects.every((project) => existsSync(join(root, project, 'dist')));
  if (compiled && existsSync(stamp) && readFileSync(stamp, 'utf8') === before) return;

  const from = performance.now();
  await nx(['run-many', '-t', 'build', '--outputStyle=static']);
  mkdirSync(join(root, '.nx'), { recursive: true });
  // The stamp of the sources as they were before: what changed meanwhile is compiled the next time.
  writeFileSync(stamp, before);
  console.log(`Compiled in ${((performance.now() - from) / 1000).toFixed(1)} s.`);
}

function fingerprint(projects) {
  const sources = projects.flatMap((project) => globSync(`${project}/{package.json,src/**/*.ts}`, { cwd: root }));
  const files = [
    ...sources.filter((path) => !/\.spec(-support)?\.ts$/.test(path)),
    '.swcrc',
    'nx.json',
    'package-lock.json',
  ].sort();
  const hash = createHash('sha256');
  for (const path of files) {
    const { size, mtimeMs } = statSync(join(root, path));
    hash.update(`${path} ${size} ${mtimeMs}\n`);
  }
  return hash.digest('hex');
}

async function nx(args) {
  const child = spawn(process.execPath, [join(root, 'node_modules/nx/dist/bin/nx.js'), ...args], { cwd: root });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  const code = await new Promise((done, fail) => child.on('error', fail).on('close', done));
  if (code !== 0) throw new Error(`The build failed.\n${said.trim()}`);
}

if (process.argv[1] === import.meta.filename) {
  await build().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
