import { until } from './stack.mjs';

/** An Unleash that was killed takes a minute to start on a busy machine, and until then nobody can set a flag. */
const ORDER_LIMIT_MS = 180_000;

/** The control plane's API, as an operator uses it. */
export class Control {
  constructor(stack) {
    this.stack = stack;
  }

  /** The status of one context; undefined while the control plane does not answer. */
  async status(context) {
    const answer = await this.#call('GET', `/control/contexts/${context}`).catch(() => undefined);
    return answer?.ok ? answer.json : undefined;
  }

  /** Sets the target, and tries again while the control plane is away. Throws when it refuses. */
  async target(context, stage, more = {}) {
    const done = await until(async () => {
      const answer = await this.#call('POST', `/control/contexts/${context}/target`, { stage, ...more }).catch(
        () => undefined,
      );
      if (answer && answer.status >= 400 && answer.status < 500)
        throw new Error(`${context} to ${stage} was refused: ${answer.status} ${answer.text}`);
      return answer?.ok;
    }, ORDER_LIMIT_MS);
    if (!done)
      throw new Error(`The control plane took no order for ${ORDER_LIMIT_MS / 1_000} s (${context} to ${stage})`);
  }

  /** Sets the target and waits until the context is there; answers how long it took, ms. Throws when it takes too long. */
  async move(context, stage, { limitMs = 120_000, ...more } = {}) {
    const from = performance.now();
    await this.target(context, stage, more);
    let last;
    const arrived = await until(
      async () => {
        const status = await this.status(context);
        last = status ?? last;
        return status?.stage === stage && status.owner === (stage === 'live' ? 'service' : 'monolith');
      },
      limitMs,
      100,
    );
    if (!arrived)
      throw new Error(
        `${context} did not come to ${stage} in ${limitMs / 1_000} s: ${JSON.stringify(last && brief(last))}`,
      );
    return performance.now() - from;
  }

  /** The next one is asked when one has died. */
  async #call(...call) {
    let failure;
    for (const url of this.stack.controlUrls)
      try {
        const answer = await this.#ask(url, ...call);
        if (answer.status !== 503) return answer;
        failure = new Error(answer.text); // it stands by
      } catch (error) {
        failure = error;
      }
    throw failure ?? new Error('no control plane runs');
  }

  async #ask(url, method, path, body) {
    const response = await fetch(url + path, {
      method,
      headers: {
        authorization: `Bearer ${this.stack.operatorToken}`,
        ...(body && { 'content-type': 'application/json' }),
      },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(5_000),
    });
    const text = await response.text();
    return { ok: response.ok, status: response.status, text, json: text ? JSON.parse(text) : undefined };
  }
}

/** What one has to know of a context that does not go on. */
function brief({ stage, target, owner, epoch, doing, blocked, lag, gates }) {
  return { stage, target, owner, epoch, doing, blocked, lag, open: gates.filter(({ ok }) => !ok) };
}
