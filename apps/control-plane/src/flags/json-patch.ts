import { z } from 'zod';
import { invalid } from './unleash-json.js';

/** RFC 6902, without `move` and `copy`: nobody needs them on a list of variants. */
export const Patches = z
  .array(
    z.discriminatedUnion('op', [
      z.object({ op: z.enum(['add', 'replace', 'test']), path: z.string(), value: z.unknown() }),
      z.object({ op: z.literal('remove'), path: z.string() }),
    ]),
  )
  .max(100);
export type Patches = z.output<typeof Patches>;

/** `document` with the patches applied to a copy. A path that leads nowhere, or a test that fails, is a 400. */
export function patched(document: unknown, patches: Patches): unknown {
  let root = structuredClone(document);
  for (const [index, patch] of patches.entries()) {
    const wrong = (detail: string) => invalid(`/${index}/path`, detail);
    if (patch.path === '') {
      if (patch.op !== 'replace') throw wrong('only "replace" takes the whole document');
      root = patch.value;
      continue;
    }
    if (!patch.path.startsWith('/')) throw wrong('is no JSON pointer');
    const keys = patch.path
      .slice(1)
      .split('/')
      .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
    const last = keys.pop() as string;
    const parent = keys.reduce((at, key) => step(at, key), root);
    if (typeof parent !== 'object' || parent === null) throw wrong('leads nowhere');
    if (Array.isArray(parent)) {
      const at = last === '-' ? parent.length : /^\d+$/.test(last) ? Number(last) : NaN;
      if (!(at < parent.length || (patch.op === 'add' && at === parent.length))) throw wrong('leads nowhere');
      if (patch.op === 'add') parent.splice(at, 0, patch.value);
      else if (patch.op === 'replace') parent[at] = patch.value;
      else if (patch.op === 'remove') parent.splice(at, 1);
      else if (!same(parent[at], patch.value)) throw wrong('is not what the test says');
      continue;
    }
    const holder = parent as Record<string, unknown>;
    if (last === '__proto__' || (patch.op !== 'add' && !Object.hasOwn(holder, last))) throw wrong('leads nowhere');
    if (patch.op === 'remove') delete holder[last];
    else if (patch.op !== 'test') holder[last] = patch.value;
    else if (!same(holder[last], patch.value)) throw wrong('is not what the test says');
  }
  return root;
}

/** Own members only: a pointer must not reach a prototype. */
const step = (at: unknown, key: string): unknown =>
  typeof at === 'object' && at !== null && Object.hasOwn(at, key) ? (at as Record<string, unknown>)[key] : undefined;

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
