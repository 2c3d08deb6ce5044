import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type SagaInput, formatState, isFinal, parseState, transition } from './saga.js';

const steps = ['reserve', 'authorise', 'confirm'];
const at = (state: string, input: SagaInput) => formatState(transition(steps, parseState(state), input));

describe('a saga', () => {
  it('goes forward step by step to its end', () => {
    expect(at('reserve', 'done')).toBe('authorise');
    expect(at('authorise', 'wait')).toBe('authorise:waiting');
    expect(at('authorise:waiting', 'done')).toBe('confirm');
    expect(at('confirm', 'done')).toBe('completed');
  });

  it('goes back through every step it came by, the refused one included', () => {
    expect(at('authorise', 'refused')).toBe('undo:authorise');
    expect(at('authorise:waiting', 'timeout')).toBe('undo:authorise');
    expect(at('undo:authorise', 'undone')).toBe('undo:reserve');
    expect(at('undo:reserve', 'undone')).toBe('compensated');
  });

  it('refuses a move that is not in the table', () => {
    for (const [state, input] of [
      ['completed', 'done'],
      ['undo:reserve', 'done'],
      ['undo:reserve', 'cancelled'],
      ['reserve:waiting', 'wait'],
      ['reserve', 'undone'],
      ['elsewhere', 'done'],
    ] as const)
      expect(() => at(state, input)).toThrow();
  });

  it('always ends, whatever happens to it', () => {
    const inputs: SagaInput[] = ['done', 'wait', 'refused', 'timeout', 'undone', 'cancelled'];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...inputs), { minLength: 20, maxLength: 60 }), (sequence) => {
        let state = parseState('reserve');
        let moves = 0;
        for (const input of sequence) {
          let next;
          try {
            next = transition(steps, state, input);
          } catch {
            continue;
          }
          state = next;
          moves += 1;
          expect(parseState(formatState(state))).toEqual(state);
        }
        // Forward at most twice per step, back at most once per step.
        expect(moves).toBeLessThanOrEqual(steps.length * 3 + 1);
        if (!isFinal(state)) expect('step' in state).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });
});
