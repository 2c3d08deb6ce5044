// Everything that has to hold, in stages: the engines that specs start (NATS, Redis) beside the build, then types and lint
// side by side (each keeps one core busy), then the specs, and at last those that measure a whole shop under load: one after
// the other, with nothing beside them. Arguments go to Vitest: `npm test -- libs/kernel`. Later stages run even when types
// or lint fail, so that one run shows all there is to mend; the last line counts such a stage as one failure.
import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
// As it is: Node takes the types out by itself.
import { installEngines } from '../libs/testing/src/engines.ts';
import build from './build.mjs';

const root = resolve(import.meta.dirname, '..');
/** The specs that want the machine for themselves. */
const alone = [
  'test/cutover/cutover.spec.ts',
  'test/cutover/fleet.spec.ts',
  'test/extraction/canary-consistency.spec.ts',
  'test/outage/redis.spec.ts',
];
const failed = [];

await Promise.all([stage('engines', () => doing(installEngines)), stage('build', () => doing(build))]);
if (failed.length > 0) finish({ passed: 0, failed: 0 });

await Promise.all([
  stage('types', () => run('typescript/bin/tsc', ['--noEmit', '--incremental', '--tsBuildInfoFile', '.nx/tsc.json'])),
  stage('lint', () => run('eslint/bin/eslint.js', ['.', '--cache', '--cache-location', '.nx/eslintcache'])),
]);

const asked = process.argv.slice(2);
const all = await specs('all', asked.length > 0 ? asked : alone.flatMap((path) => ['--exclude', path]));
const last = asked.length > 0 ? { passed: 0, failed: 0 } : await specs('alone', ['--no-file-parallelism', ...alone]);
finish({ passed: all.passed + last.passed, failed: all.failed + last.failed });

async function stage(name, work) {
  const from = performance.now();
  const { ok, said } = await work();
  const seconds = ((performance.now() - from) / 1000).toFixed(1);
  console.log(`${ok ? 'ok    ' : 'FAILED'}  ${name.padEnd(7)} ${seconds} s`);
  if (ok) return;
  failed.push(name);
  console.log(`${said.trim()}\n`);
}

async function doing(work) {
  try {
    await work();
    return { ok: true, said: '' };
  } catch (error) {
    return { ok: false, said: error.message };
  }
}

async function run(bin, args, stdio = 'pipe') {
  const child = spawn(process.execPath, [join(root, 'node_modules', bin), ...args], { cwd: root, stdio });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (said += chunk));
  const code = await new Promise((done, fail) => child.on('error', fail).on('close', done));
  return { ok: code === 0, said };
}

/** Runs Vitest with these arguments; how many tests passed and failed. */
async function specs(name, args) {
  const report = join(root, `.nx/vitest-${name}.json`);
  rmSync(report, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const { ok } = await run('vitest/vitest.mjs', ['run', ...reporters, ...args], 'inherit');
  return counts(report, ok);
}

function counts(report, ok) {
  try {
    const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(report, 'utf8'));
    const unloadable = testResults.filter((file) => file.status === 'failed' && file.assertionResults.length === 0);
    const broken = numFailedTests + unloadable.length;
    // An error outside of any test fails the run too.
    return { passed: numPassedTests, failed: ok ? broken : Math.max(broken, 1) };
  } catch {
    return { passed: 0, failed: 1 };
  }
}

function finish(tests) {
  if (failed.length > 0) console.log(`Not only the specs: ${failed.join(' and ')} failed, see above.`);
  console.log(`${tests.passed} passed, ${tests.failed + failed.length} failed`);
  process.exit(tests.failed + failed.length > 0 ? 1 : 0);
}
