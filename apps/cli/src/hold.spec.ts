import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type Hold, hold, released } from './hold.js';

describe('A name that one process per state folder may have', () => {
  const folder = mkdtempSync(join(tmpdir(), 'banyan-hold-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('is refused to the second one, who is told which process has it', async () => {
    const first = (await hold(folder, 'one')) as Hold;
    expect(await hold(folder, 'one')).toEqual({ heldBy: process.pid });
    first.letGo();
    const next = (await hold(folder, 'one')) as Hold;
    expect(next).toHaveProperty('letGo');
    next.letGo();
  });

  it('is another one in another folder, and under another word', async () => {
    const held = [await hold(folder, 'a'), await hold(folder, 'b'), await hold(join(folder, 'another'), 'a')];
    for (const each of held) expect(each).toHaveProperty('letGo');
    for (const each of held) (each as Hold).letGo();
  });

  it('is free again when its holder was killed', async () => {
    // The holder has to be another process, and this one has no build: the same call, written out in JavaScript.
    const { createHash } = await import('node:crypto');
    const id = `banyan-killed-${createHash('sha256').update(folder).digest('hex').slice(0, 24)}`;
    const address = process.platform === 'linux' ? `\0${id}` : join(tmpdir(), `${id}.sock`);
    const script = `require('net').createServer((s) => s.write(process.pid + '\\n')).listen(${JSON.stringify(address)}, () => console.log('held'))`;
    const holder = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(holder.stdout, 'data');
    expect(await hold(folder, 'killed')).toEqual({ heldBy: holder.pid });

    const waiting = released(folder, 'killed');
    holder.kill('SIGKILL');
    await waiting;
    const held = (await hold(folder, 'killed')) as Hold;
    expect(held).toHaveProperty('letGo');
    held.letGo();
  });
});
