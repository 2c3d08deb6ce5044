/** Each thing that has to hold, by the sentence that says so. A run is judged by all of them, unless it says by which. */
export const CHECKS = {
  answered: 'Every request is answered: no 5xx, no reset, no timeout',
  owner: 'A context has one owner at every instant, and epochs only grow',
  books: 'No order, payment, reservation or event is lost, or there twice',
  ownWrites: 'A client sees its own last write, and no write is lost at a hand-over',
  pause: 'Writes pause for less than 150 ms at a hand-over (p99)',
  stages: 'Every context ends at the stage that its flag asks for',
  faults: 'After a kill at any step everything goes on, and a retry with the same key succeeds',
  processes: 'Nothing ends by itself, and everything stops when asked',
};

/** What was found wrong, by the sentence that it contradicts. Of a sentence that a run does not look at nothing is said. */
export class Findings {
  #wrong;

  constructor(checks = Object.keys(CHECKS)) {
    this.#wrong = new Map(checks.map((check) => [check, new Map()]));
  }

  wrong(check, text) {
    const found = this.#wrong.get(check);
    found.set(text, (found.get(text) ?? 0) + 1);
  }

  get ok() {
    return [...this.#wrong.values()].every((found) => found.size === 0);
  }

  /** The sentences with what contradicts them. */
  get verdicts() {
    return [...this.#wrong].map(([check, found]) => ({
      check,
      sentence: CHECKS[check],
      violations: [...found].map(([text, times]) => (times > 1 ? `${text} (${times} times)` : text)),
    }));
  }
}
