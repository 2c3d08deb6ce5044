import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { keptSecret } from './kept-secret.js';

let dir: string;
beforeEach(() => void (dir = mkdtempSync(join(tmpdir(), 'banyan-secret-'))));
afterEach(() => rmSync(dir, { recursive: true }));

describe('keptSecret', () => {
  it('is made once, kept, and readable by its owner only', () => {
    const stateDir = join(dir, 'new', 'state');
    const secret = keptSecret(stateDir, 'signing-secret');
    expect(secret).toMatch(/^[\w-]{43}$/);
    expect(keptSecret(stateDir, 'signing-secret')).toBe(secret);
    expect(keptSecret(stateDir, 'another')).not.toBe(secret);
    expect(statSync(join(stateDir, 'signing-secret')).mode & 0o777).toBe(0o600);
  });

  it('is one secret for processes that ask at once, with nothing left over', async () => {
    const script = `import { keptSecret } from ${JSON.stringify(join(import.meta.dirname, 'kept-secret.ts'))};
      process.stdout.write(keptSecret(process.argv[1], 's'))`;
    const ask = () => promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, dir]);
    const answers = await Promise.all([1, 2, 3, 4].map(ask));
    expect(new Set(answers.map(({ stdout }) => stdout)).size).toBe(1);
    expect(readdirSync(dir)).toEqual(['s']);
  });

  it('says so when the file was emptied', () => {
    writeFileSync(join(dir, 's'), '');
    expect(() => keptSecret(dir, 's')).toThrow(/is empty/);
  });
});
