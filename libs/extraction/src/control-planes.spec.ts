import { expect, it } from 'vitest';
import { ControlPlanes } from './control-planes.js';

it('who was of use last is asked first, and then the others in turn', async () => {
  const planes = new ControlPlanes(['a', 'b', 'c']);
  const asked: string[] = [];
  const acts = (acting: string) =>
    planes.ask(async (url) => {
      asked.push(url);
      return url === acting ? url : undefined;
    });
  expect(await acts('b')).toBe('b');
  expect(planes.current).toBe('b');
  expect(await acts('a')).toBe('a');
  expect(await acts('nobody')).toBeUndefined();
  expect(planes.current).toBe('a');
  expect(asked.join('')).toBe('abbcaabc');
  await expect(planes.ask(() => Promise.reject(new Error('enough')))).rejects.toThrow('enough');
});

it('who asks at the same time misses none', async () => {
  const planes = new ControlPlanes(['away', 'standing by', 'acting']);
  const answers = await Promise.all(
    Array.from({ length: 8 }, (_, n) =>
      planes.ask(async (url) => {
        for (let turns = 0; turns <= n; turns++) await Promise.resolve();
        return url === 'acting' ? url : undefined;
      }),
    ),
  );
  expect(new Set(answers)).toEqual(new Set(['acting']));
});
