/**
 * What a run has to stop, whatever happens: the last first, each once, at its end or when it is told to stop (Ctrl-C, or the
 * time limit of the spec that has started it).
 */
export class Endings {
  #stops = [];
  #ended;

  constructor() {
    const tell = (error) => console.error(error);
    const stop = async () => {
      await this.end().catch(tell);
      process.exit(130);
    };
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);
  }

  /** Starts something that can be `stop`ped. What is still starting when the run ends is waited for, and then stopped. */
  async add(start) {
    if (this.#ended) throw new Error('The run has been told to stop');
    const starting = (async () => start())();
    this.#stops.push(async () => (await starting.catch(() => undefined))?.stop());
    return starting;
  }

  /** Safe to call again. What cannot be stopped keeps nothing else from it; the first such error is thrown. */
  end() {
    return (this.#ended ??= this.#stopAll());
  }

  async #stopAll() {
    const errors = [];
    for (const stop of this.#stops.toReversed()) await stop().catch((error) => errors.push(error));
    if (errors.length > 0) throw errors[0];
  }
}
