import { describe, expect, it } from 'vitest';
import { Patches, patched } from './json-patch.js';

const variants = [{ name: 'shadow', weight: 1_000 }];

describe('JSON patches (RFC 6902)', () => {
  it.each([
    [[{ op: 'replace', path: '/0/name', value: 'live' }], [{ name: 'live', weight: 1_000 }]],
    [[{ op: 'add', path: '/-', value: { name: 'live' } }], [...variants, { name: 'live' }]],
    [[{ op: 'add', path: '/0', value: { name: 'live' } }], [{ name: 'live' }, ...variants]],
    [[{ op: 'add', path: '/0/stickiness', value: 'default' }], [{ ...variants[0], stickiness: 'default' }]],
    [[{ op: 'remove', path: '/0' }], []],
    [[{ op: 'remove', path: '/0/weight' }], [{ name: 'shadow' }]],
    [[{ op: 'replace', path: '', value: [] }], []],
    [[{ op: 'test', path: '/0/name', value: 'shadow' }], variants],
    [[{ op: 'add', path: '/0/a~1b', value: 1 }], [{ ...variants[0], 'a/b': 1 }]],
  ])('%j', (patches, result) => {
    expect(patched(variants, Patches.parse(patches))).toEqual(result);
    expect(variants).toEqual([{ name: 'shadow', weight: 1_000 }]);
  });

  it.each([
    { op: 'replace', path: '/1/name', value: 'x' },
    { op: 'replace', path: '/0/nosuch', value: 'x' },
    { op: 'remove', path: '/7' },
    { op: 'add', path: '/2', value: 'x' },
    { op: 'add', path: '/01x', value: 'x' },
    { op: 'remove', path: '/-' },
    { op: 'replace', path: '0/name', value: 'x' },
    { op: 'test', path: '/0/name', value: 'live' },
    { op: 'add', path: '/0/__proto__', value: {} },
    { op: 'add', path: '/__proto__/polluted', value: true },
    { op: 'add', path: '/constructor/prototype/polluted', value: true },
    { op: 'remove', path: '' },
  ])('refuses %j', (patch) => {
    expect(() => patched(variants, Patches.parse([patch]))).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }));
    expect({}).not.toHaveProperty('polluted');
  });
});
