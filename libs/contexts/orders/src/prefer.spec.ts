import { describe, expect, it } from 'vitest';
import { preferredWait } from './prefer.js';

describe('Prefer', () => {
  it.each([
    ['wait=5', 5],
    ['Wait = "3"', 3],
    ['respond-async, wait=7', 7],
    ['wait=2; reason=demo', 2],
    ['wait=0', 0],
    ['wait=600', 10],
    ['wait=1, wait=9', 1],
  ])('%s waits %i seconds', (header, seconds) => expect(preferredWait(header)).toBe(seconds));

  it.each([undefined, '', 'respond-async', 'wait', 'wait=-1', 'wait=soon', 'wait=1.5', 'nowait=3'])(
    '%s asks for nothing',
    (header) => expect(preferredWait(header)).toBeUndefined(),
  );
});
