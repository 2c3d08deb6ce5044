import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { LogFollower, type LogLine, noteworthy } from './log-follower.js';

describe('A line of a log', () => {
  it.each([
    ['{"level":30,"msg":"request done"}', undefined],
    ['{"level":"info","msg":"request done"}', undefined],
    ['', undefined],
    ['[Nest] 28358  - 11/22/2026, 6:08:10 PM     LOG [NestFactory] Starting', undefined],
    ['{"level":40,"msg":"slow"}', { level: 'warn', message: 'slow' }],
    ['{"level":"error","msg":"failed"}', { level: 'error', message: 'failed' }],
    [
      '{"time":1,"level":60,"msg":"failed","err":{"message":"no disk"}}',
      { level: 'error', message: 'failed: no disk' },
    ],
    ['{"level":50,"err":{"message":"no disk"}}', { level: 'error', message: 'no disk' }],
    ['Error: out of memory', { level: 'error', message: 'Error: out of memory' }],
    ['{"level":50,"msg":"cut o', { level: 'error', message: '{"level":50,"msg":"cut o' }],
  ])('%s', (line, shown) => {
    expect(noteworthy(line)).toEqual(shown);
  });
});

describe('Following a log', () => {
  const folder = mkdtempSync(join(tmpdir(), 'banyan-log-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'app.log');
  const warning = (n: number) => `{"level":40,"msg":"warning ${n}"}\n`;

  it('starts at the given place, joins lines that come in two parts, and tells what it leaves out', async () => {
    writeFileSync(path, warning(0));
    const lines: LogLine[] = [];
    const follower = await LogFollower.start(path, warning(0).length, (line) => lines.push(line));
    appendFileSync(path, '{"level":40,"ms');
    await follower.catchUp();
    expect(lines).toEqual([]);
    appendFileSync(path, 'g":"in two parts"}\n{"level":30,"msg":"nothing"}\n');
    await follower.catchUp();
    expect(lines.map(({ message }) => message)).toEqual(['in two parts']);

    appendFileSync(path, Array.from({ length: 50 }, (_, n) => warning(n)).join(''));
    await follower.stop();
    expect(lines).toHaveLength(22);
    expect(lines[1]?.message).toContain('30 more before');
    expect(lines.at(-1)?.message).toBe('warning 49');
  });
});
