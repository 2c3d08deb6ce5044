import type { CallOptions, CommandContext } from './handlers.js';

/** What running a step came to: facts to remember, or a wait for a signal (an event that will come). */
export type StepResult<D> = { done: Partial<D> } | { wait: Partial<D> };
export const done = <D>(facts: Partial<D> = {}): StepResult<D> => ({ done: facts });
export const wait = <D>(facts: Partial<D> = {}): StepResult<D> => ({ wait: facts });

/**
 * One step. `run` and `compensate` happen outside transactions, may be repeated after a crash, and pass `call` on,
 * which carries a key derived from (saga, step): doing them twice is doing them once.
 * A DomainError of kind unavailable, internal or too_many is tried again with back-off until the deadline; any other
 * refuses the step and starts compensation, newest step first, this one included.
 */
export interface SagaStep<D> {
  name: string;
  /** Time the step may take in all, waiting included, ms. Omitted: no way back from here, tried for ever. */
  withinMs?: number;
  /** Omitted: there is nothing to do but to wait for a signal. */
  run?(data: D, call: CallOptions): Promise<StepResult<D>>;
  compensate?(data: D, call: CallOptions): Promise<void>;
  /** Local writes and events in the transaction that moves the saga on. */
  onDone?(data: D, ctx: CommandContext): Promise<void>;
  /** Local writes in the transaction that makes the saga wait. */
  onWait?(data: D, ctx: CommandContext): Promise<void>;
}

export interface SagaDefinition<D> {
  /** `<context>.<what>` */
  name: string;
  steps: SagaStep<D>[];
  /** Local writes when all that was done has been undone. `reason` is the code of what failed, or `timeout`. */
  onCompensated(data: D, reason: string, ctx: CommandContext): Promise<void>;
}

export const defineSaga = <D>(definition: SagaDefinition<D>): SagaDefinition<D> => definition;

/** Where a saga stands. Kept as text in the row: `reserve`, `authorise:waiting`, `undo:reserve`, `completed`, … */
export type SagaState =
  | { at: 'step'; step: string }
  | { at: 'waiting'; step: string }
  | { at: 'undo'; step: string }
  | { at: 'completed' | 'compensated' | 'cancelled' };

export type SagaInput = 'done' | 'wait' | 'refused' | 'timeout' | 'undone' | 'cancelled';

export function formatState(state: SagaState): string {
  if (state.at === 'step') return state.step;
  if (state.at === 'waiting') return `${state.step}:waiting`;
  if (state.at === 'undo') return `undo:${state.step}`;
  return state.at;
}

export function parseState(text: string): SagaState {
  if (text === 'completed' || text === 'compensated' || text === 'cancelled') return { at: text };
  if (text.startsWith('undo:')) return { at: 'undo', step: text.slice(5) };
  if (text.endsWith(':waiting')) return { at: 'waiting', step: text.slice(0, -8) };
  return { at: 'step', step: text };
}

export const isFinal = (state: SagaState): boolean =>
  state.at === 'completed' || state.at === 'compensated' || state.at === 'cancelled';

/**
 * The transition table of every saga. Throws on a move that is not in it: a silently ignored move is a lost order.
 * `steps` are the names in order.
 */
export function transition(steps: readonly string[], state: SagaState, input: SagaInput): SagaState {
  const illegal = () => new Error(`A saga in ${formatState(state)} cannot take '${input}'`);
  if (isFinal(state) || !('step' in state)) throw illegal();
  const index = steps.indexOf(state.step);
  if (index < 0) throw new Error(`Unknown saga step ${state.step}`);
  const forward = (): SagaState =>
    index + 1 < steps.length ? { at: 'step', step: steps[index + 1]! } : { at: 'completed' };
  const back = (): SagaState => (index > 0 ? { at: 'undo', step: steps[index - 1]! } : { at: 'compensated' });
  const table: Record<'step' | 'waiting' | 'undo', Partial<Record<SagaInput, () => SagaState>>> = {
    step: {
      done: forward,
      wait: () => ({ at: 'waiting', step: state.step }),
      refused: () => ({ at: 'undo', step: state.step }),
      timeout: () => ({ at: 'undo', step: state.step }),
      cancelled: () => ({ at: 'cancelled' }),
    },
    waiting: {
      done: forward,
      refused: () => ({ at: 'undo', step: state.step }),
      timeout: () => ({ at: 'undo', step: state.step }),
      cancelled: () => ({ at: 'cancelled' }),
    },
    undo: { undone: back },
  };
  const move = table[state.at as 'step' | 'waiting' | 'undo'][input];
  if (!move) throw illegal();
  return move();
}
