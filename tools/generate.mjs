// Generates the Prisma client of every context whose schema changed. `npm run build` and Vitest run it first.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
const prismaPackage = createRequire(import.meta.url).resolve('prisma/package.json');

/** Brings all generated clients up to date. Throws with Prisma's own words when a schema is wrong. */
export default async function generateClients() {
  const { version } = JSON.parse(await readFile(prismaPackage, 'utf8'));
  const contexts = await readdir(join(root, 'prisma'));
  const stale = (await Promise.all(contexts.map((context) => staleClient(context, version)))).filter(Boolean);
  // Each run keeps one core busy for a second.
  const lanes = Array.from({ length: Math.min(availableParallelism(), stale.length) }, async () => {
    for (let client = stale.pop(); client; client = stale.pop()) await generate(client);
  });
  await Promise.all(lanes);
}

async function staleClient(context, version) {
  const schema = join(root, 'prisma', context, 'schema.prisma');
  const text = await readFile(schema, 'utf8').catch(() => undefined);
  const output = text?.match(/^\s*output\s*=\s*"(.+)"/m)?.[1];
  if (text === undefined) return undefined;
  if (!output) throw new Error(`${schema}: the generator block has no output`);
  const folder = resolve(dirname(schema), output);
  const hash = createHash('sha256').update(`${version}\n${text}`).digest('hex');
  const stamp = join(folder, '.schema');
  const same = (await readFile(stamp, 'utf8').catch(() => '')) === hash;
  return same ? undefined : { schema, folder, stamp, hash };
}

async function generate({ schema, folder, stamp, hash }) {
  const cli = join(dirname(prismaPackage), 'build', 'index.js');
  const child = spawn(process.execPath, [cli, 'generate', '--schema', schema, '--no-hints'], {
    cwd: root,
    // Generating needs no schema engine, but the CLI would download one unless it is shown something executable.
    env: {
      ...process.env,
      PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
      CHECKPOINT_DISABLE: '1',
    },
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  const code = await new Promise((done, fail) => child.on('error', fail).on('close', done));
  if (code !== 0) throw new Error(`prisma generate failed for ${schema}:\n${said.trim()}`);
  await mkdir(folder, { recursive: true });
  await writeFile(stamp, hash);
}

if (process.argv[1] === import.meta.filename) {
  await generateClients().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
