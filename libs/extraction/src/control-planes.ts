/** Several control planes, of which one acts. Who was of use last is asked first. */
export class ControlPlanes {
  #first = 0;

  constructor(readonly urls: readonly string[]) {}

  /** The one that was of use last. */
  get current(): string {
    return this.urls[this.#first]!;
  }

  /**
   * Asks one after the other until one is of use; `ask` resolves with undefined for one that is not, and ends it all by
   * rejecting. Undefined: none is.
   */
  async ask<T>(ask: (url: string) => Promise<T | undefined>): Promise<T | undefined> {
    // Its own count: others ask at the same time.
    const from = this.#first;
    for (let n = 0; n < this.urls.length; n++) {
      const at = (from + n) % this.urls.length;
      const answer = await ask(this.urls[at]!);
      if (answer === undefined) continue;
      this.#first = at;
      return answer;
    }
    return undefined;
  }
}
