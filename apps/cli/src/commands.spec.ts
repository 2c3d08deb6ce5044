import type { ContextStatus } from '@banyan/extraction/status';
import { eventually } from '@banyan/testing';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { OPERATOR_TOKEN, ScriptedControlPlane } from './control-plane.spec-support.js';

/* The real command, as it is typed, against a control plane that only speaks its API. */
const workspace = join(import.meta.dirname, '../../..');
const folder = mkdtempSync(join(tmpdir(), 'banyan-commands-'));
let controlPlane: ScriptedControlPlane;

interface Run {
  child: ChildProcess;
  ended: Promise<{ code: number | null; stdout: string; stderr: string }>;
  said: () => string;
}

function start(line: string, settings: Record<string, string> = {}): Run {
  const child = spawn(process.execPath, [join(workspace, 'apps/cli/bin/banyan.mjs'), ...line.split(' ')], {
    env: {
      ...process.env,
      NO_COLOR: '1',
      BANYAN_STATE_DIR: folder,
      CONTROL_URL: controlPlane.url,
      BANYAN_OPERATOR_TOKEN: OPERATOR_TOKEN,
      ...settings,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>((done) =>
    child.once('close', (code) => done({ code, stdout, stderr })),
  );
  return { child, ended, said: () => stdout };
}
const run = (line: string, settings?: Record<string, string>) => start(line, settings).ended;
const lines = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

/** A command has to start first. */
const patient = { timeoutMs: 30_000 };

/** Tells the stations of a journey one after the other, as the real one would, to who follows it. */
function travel(context: string, stations: Partial<ContextStatus>[]): void {
  const plane = controlPlane;
  plane.onTarget = () => {
    const before = plane.followed;
    void eventually(() => plane.followed > before, patient).then(
      () => stations.forEach((station, i) => setTimeout(() => plane.tell(context, station), 50 * (i + 1))),
      () => {}, // nobody followed it: the command has failed
    );
  };
}
const wayOut: Partial<ContextStatus>[] = [
  { doing: 'copying rows (40 %)', backfill: { percent: 40, rows: 400 } },
  { stage: 'replicate', doing: 'waiting for the gates', lag: { bytes: 120, ms: 4 } },
  { stage: 'shadow', doing: 'comparing' },
  { stage: 'canary', percent: 10 },
  { stage: 'live', owner: null, doing: 'handing over' },
  { owner: 'service', epoch: 2, doing: null },
];

describe('banyan', () => {
  beforeAll(() => void execFileSync(process.execPath, [join(workspace, 'tools/build.mjs')]), 120_000);
  beforeEach(async () => {
    controlPlane = new ScriptedControlPlane('inventory', 'orders');
    await controlPlane.start();
  });
  afterEach(() => controlPlane.stop());
  afterAll(() => rmSync(folder, { recursive: true }));

  describe('extract', () => {
    it('asks for the target, follows it to the end, and says what can be done next', async () => {
      travel('inventory', wayOut);
      const { code, stdout } = await run('extract inventory --to live --reason Friday');
      expect(code).toBe(0);
      expect(controlPlane.asked).toContain(
        'POST /control/contexts/inventory/target {"stage":"live","reason":"Friday"}',
      );
      for (const stage of ['replicate', 'shadow', 'canary', 'live']) expect(stdout).toMatch(new RegExp(`✔ ${stage} `));
      expect(stdout).toMatch(/inventory is live: .*banyan rollback inventory/);
    });

    it('is a line of JSON for each change, and the result in the last', async () => {
      travel('inventory', wayOut);
      const { code, stdout } = await run('extract inventory --json');
      expect(code).toBe(0);
      const all = lines(stdout);
      expect(all.at(-1)).toMatchObject({ ok: true, context: 'inventory', stage: 'live', owner: 'service', epoch: 2 });
      expect(all.slice(0, -1).every(({ event }) => event === 'progress')).toBe(true);
      expect(new Set(all.map(({ stage }) => stage))).toEqual(
        new Set(['monolith', 'replicate', 'shadow', 'canary', 'live']),
      );
    });

    it('sends the share of a canary, and whether gates are skipped', async () => {
      travel('orders', [{ stage: 'canary', doing: null }]);
      expect(await run('extract orders --to canary --percent 25 --force')).toMatchObject({ code: 0 });
      expect(controlPlane.asked).toContain(
        'POST /control/contexts/orders/target {"stage":"canary","percent":25,"force":true}',
      );
    });

    it('has nothing to do where it is already', async () => {
      controlPlane.tell('inventory', { stage: 'live', target: 'live', owner: 'service', epoch: 2 });
      const { code, stdout } = await run('extract inventory');
      expect({ code, stdout }).toEqual({ code: 0, stdout: 'inventory is live already.\n' });
      expect(controlPlane.asked.some((each) => each.startsWith('POST'))).toBe(false);
    });

    it('ends with a reason and a next step when somebody froze it, and when it takes too long', async () => {
      controlPlane.tell('inventory', { stage: 'shadow', frozen: true });
      const frozen = await run('extract inventory --json');
      expect(frozen.code).toBe(8);
      expect(lines(frozen.stdout).at(-1)).toEqual({
        ok: false,
        error: { code: 'BLOCKED', detail: 'inventory is frozen in shadow:', next: expect.stringContaining('--off') },
      });
      expect((await run('extract orders --timeout 1')).code).toBe(9);
    });

    it('leaves it running on Ctrl-C, and says so', async () => {
      const { child, ended, said } = start('extract inventory');
      await eventually(() => said().includes('replicate'), patient);
      child.kill('SIGINT');
      const { code, stderr } = await ended;
      expect(code).toBe(130);
      expect(stderr).toMatch(/^inventory goes on to live without you: banyan status inventory --watch .*\n$/);
    });

    it.each([
      ['extract nothing', /^There is no context nothing\. The contexts are inventory, orders\.\n$/],
      [
        'extract inventory --to retired',
        /^There is no stage retired: take one of replicate, shadow, canary, live\.\n$/,
      ],
      ['extract inventory --to monolith', /^That is the way back: banyan rollback takes it\.\n$/],
      ['extract inventory --percent 5', /^--percent is for a canary, and this goes to live: add --to canary\.\n$/],
      ['extract inventory --to canary --percent many', /^--percent takes a number from 0 to 100, .*\n$/],
      ['extract inventory --too live', /^banyan extract knows no --too: .*\n$/],
      ['extract inventory orders', /^banyan extract does not know what to do with orders: .*\n$/],
      ['extract', /^Missing required positional argument: CONTEXT: .*\n$/],
      ['extrakt inventory', /^Unknown command extrakt: .*\n$/],
    ])('%s is refused in one line', async (line, message) => {
      const { code, stderr, stdout } = await run(line);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toMatch(message);
    });
  });

  it('rollback goes to the monolith, or to where it is told', async () => {
    controlPlane.tell('inventory', { stage: 'live', target: 'live', owner: 'service', epoch: 2 });
    travel('inventory', [
      { stage: 'canary', owner: 'monolith', epoch: 3 },
      { stage: 'shadow', doing: null },
    ]);
    const partly = await run('rollback inventory --to shadow --reason slow');
    expect(partly).toMatchObject({ code: 0, stdout: expect.stringContaining('inventory is back in shadow.') });
    expect(controlPlane.asked).toContain('POST /control/contexts/inventory/rollback {"to":"shadow","reason":"slow"}');

    travel('inventory', [{ stage: 'replicate' }, { stage: 'monolith', doing: null }]);
    expect(await run('rollback inventory')).toMatchObject({ code: 0 });
    expect(await run('rollback inventory')).toEqual({
      code: 0,
      stdout: 'inventory is in monolith already.\n',
      stderr: '',
    });
    expect(await run('rollback inventory --to canary')).toMatchObject({ code: 7 });
  });

  it('freeze keeps it where it is, and lets it go', async () => {
    expect(await run('freeze inventory')).toMatchObject({ code: 0, stdout: expect.stringContaining('is frozen') });
    expect(await run('freeze inventory --off')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('no longer'),
    });
    expect(controlPlane.asked.filter((each) => each.includes('/freeze'))).toEqual([
      'POST /control/contexts/inventory/freeze {"frozen":true}',
      'POST /control/contexts/inventory/freeze {"frozen":false}',
    ]);
  });

  it('diff and evidence show what is known', async () => {
    const difference = await run('diff inventory');
    expect(difference.stdout).toMatch(/GET \/v1\/stock\/\{sku\} +\/available +changed +difference +3/);
    expect(difference.stdout).toContain('candidate 4');
    expect((await run('evidence inventory')).stdout).toMatch(/shadow -> canary\n.*\n +ok +read parity +200 of 200/);
  });

  it('events lists what was given up, and delivers it again', async () => {
    expect((await run('events list')).stdout).toMatch(/inventory\.StockReserved +orders +A-1 +10 .* it is full\n/);
    expect((await run('events list orders')).stdout).toBe('No event is parked.\n');
    const again = await run('events redrive inventory --ids 0199a000-0000-7000-8000-000000000001');
    expect(again).toMatchObject({ code: 0, stdout: '1 event is delivered again.\n' });
    expect(controlPlane.asked.at(-1)).toBe(
      'POST /control/dead-letters/redrive {"context":"inventory","ids":["0199a000-0000-7000-8000-000000000001"]}',
    );
  });

  it('status shows every context, or all of one', async () => {
    controlPlane.tell('inventory', { stage: 'replicate', target: 'live', doing: 'copying', lag: { bytes: 0, ms: 12 } });
    const { code, stdout } = await run('status');
    expect(code).toBe(0);
    expect(stdout).toMatch(/inventory +replicate +live +monolith +1 +12 ms +copying/);
    expect((await run('status orders')).stdout).toMatch(/owner +monolith \(epoch 1\)/);
    const [{ contexts } = {}] = lines((await run('status --json')).stdout);
    expect(contexts).toHaveLength(2);
    expect((await run('status nothing')).code).toBe(2);
  });

  it('says that nothing runs, that nothing answers, and that the token is wrong', async () => {
    const here = { CONTROL_URL: '', BANYAN_OPERATOR_TOKEN: '' };
    expect(await run('rollback inventory', here)).toMatchObject({
      code: 5,
      stderr: expect.stringMatching(/npm start/),
    });
    writeFileSync(join(folder, 'operator-token'), 'a token of some other installation\n');
    const wrong = await run('rollback inventory', { BANYAN_OPERATOR_TOKEN: '' });
    expect(wrong).toMatchObject({ code: 7, stderr: expect.stringMatching(/does not accept this operator token/) });
    await controlPlane.stop();
    const dead = await run('rollback inventory');
    expect(dead).toMatchObject({
      code: 6,
      stderr: expect.stringMatching(/^The control plane does not answer at .*\n$/),
    });
  });
});
