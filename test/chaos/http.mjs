import { Agent, request } from 'undici';
import { setTimeout as sleep } from 'node:timers/promises';

/* Longer than the app takes for anything: an answer that we stopped waiting for could still come to be. */
const agent = new Agent({ connections: 256, pipelining: 1, headersTimeout: 40_000, bodyTimeout: 40_000 });

/**
 * A client that does what a good client does: it sends again, with the same key, until it has been told how it is. Of
 * several addresses it takes the next one each time, as behind a load balancer.
 */
export class Caller {
  /** How often something had to be sent again, by what had come instead of an answer. */
  static resent = { connection: 0, unavailable: 0, inProgress: 0 };

  #sent = 0;

  constructor(urls, { token, random, giveUp, complain }) {
    Object.assign(this, { urls, token, random, giveUp, complain });
  }

  /** Resolves with the final answer, undefined when the run is over before there is one. */
  async call(method, path, { body, key, headers: more } = {}) {
    const headers = {
      ...more,
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...(this.token && { authorization: `Bearer ${this.token}` }),
      ...(key && { 'idempotency-key': key }),
    };
    for (let pause = 40; !this.giveUp(); pause = Math.min(2 * pause, 500)) {
      const answer = await this.#send(path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        dispatcher: agent,
      });
      const text = await answer?.body.text().catch(() => undefined);
      if (text === undefined) Caller.resent.connection++;
      else {
        const json = text ? JSON.parse(text) : undefined;
        const { statusCode: status } = answer;
        if (status === 503) Caller.resent.unavailable++;
        // It broke behind the proxy.
        else if (status === 502) Caller.resent.connection++;
        else if (status === 409 && json?.code === 'IDEMPOTENCY_IN_PROGRESS') Caller.resent.inProgress++;
        else {
          if (status >= 500)
            this.complain(`${method} ${path.replace(/[\da-f-]{36}/, '…')} answered ${status}: ${text}`);
          else return { status, json, text, replayed: answer.headers['idempotent-replayed'] === 'true' };
        }
      }
      await sleep(pause * this.random.between(0.5, 1.5));
    }
    return undefined;
  }

  /** Who does not listen is passed over. Undefined: there was no answer. */
  async #send(path, options) {
    for (const _ of this.urls)
      try {
        return await request(this.urls[this.#sent++ % this.urls.length] + path, options);
      } catch (error) {
        if (error.code !== 'ECONNREFUSED') return undefined;
      }
    return undefined;
  }
}
