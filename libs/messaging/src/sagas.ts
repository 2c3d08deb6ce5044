import type { CommandContext } from './handlers.js';
import type { SagaRunner, Signal } from './saga-runner.js';
import type { WritingContext } from './unit-of-work.js';

/** Sagas as a context's handlers see them. All three write in the current transaction. */
export class Sagas {
  readonly #runners = new Map<string, SagaRunner>();

  add(runner: SagaRunner): void {
    this.#runners.set(runner.unit.context, runner);
  }

  /** Begins a saga; it runs as soon as the transaction has committed. */
  async start<D extends object>(name: string, id: string, data: D, ctx: CommandContext): Promise<void> {
    this.#of(name).begin(name, id, data as Record<string, unknown>, ctx as WritingContext);
  }

  /** Tells a waiting step how it went. A signal that comes early is kept. */
  signal(name: string, id: string, step: string, signal: Signal, ctx: CommandContext): Promise<void> {
    return this.#of(name).signal(name, id, step, signal, ctx as WritingContext);
  }

  /** Ends the saga without compensation. */
  cancel(name: string, id: string, ctx: CommandContext): Promise<void> {
    return this.#of(name).cancel(name, id, ctx as WritingContext);
  }

  #of(name: string): SagaRunner {
    const runner = this.#runners.get(name.split('.')[0]!);
    if (!runner) throw new Error(`Nothing runs the saga ${name} in this process`);
    return runner;
  }
}
