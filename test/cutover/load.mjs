// A process that sends requests at a given rate, whether the ones before have been answered or not: what a crowd does.
// Latencies count from the instant at which a request was due, so that waiting for a slow shop is not left out.
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { quantile, randomFrom } from '../support/report.mjs';
import { Crowd } from './crowd.mjs';

/** As long as a client goes on asking for an answer, with the same key. */
const PATIENCE_MS = 30_000;
/** Whoever is so far behind was held up itself, and goes on at its rate: all at once would be another load. */
const BEHIND_MS = 1_000;
const clock = () => performance.timeOrigin + performance.now();

class Load {
  latencies = { read: [], command: [] };
  commands = [];
  troubles = [];
  unanswered = [];
  servedBy = {};
  /** By context and epoch, the side that took commands. */
  takers = {};
  sent = 0;
  inFlight = 0;
  #told = 0;
  #over = false;

  constructor({ urls, rate, seed }) {
    Object.assign(this, { urls, rate, random: randomFrom(seed), spread: randomFrom(seed + 2) });
    // Connections are let go before the proxy does: a request must not meet one that is just being closed.
    this.agent = new Agent({
      connections: 512,
      pipelining: 1,
      keepAliveTimeout: 2_000,
      keepAliveMaxTimeout: 2_000,
      headersTimeout: 10_000,
      bodyTimeout: 10_000,
    });
  }

  async run(crowd) {
    for (let due = clock(); !this.#over;) {
      due += (-Math.log(1 - this.random.next()) * 1_000) / this.rate;
      const early = due - clock();
      if (early > 1) await sleep(early);
      else if (early < -BEHIND_MS) due -= early;
      // What has come meanwhile is read first: answers, and that a connection has ended.
      await turn();
      void this.#visit(crowd, due);
    }
  }

  /** Sends nothing new, and waits until all that was sent has its answer. */
  async finish(running) {
    this.#over = true;
    // It may be about to send one more.
    await running;
    while (this.inFlight > 0) await sleep(20);
  }

  async #visit(crowd, due) {
    const visit = crowd.next();
    this.sent++;
    this.inFlight++;
    try {
      await visit.settle?.(await this.send(visit, due));
    } finally {
      this.inFlight--;
      visit.release?.();
    }
  }

  /** The answer that is final; undefined when there was none for as long as a client is patient. */
  async send(visit, due = clock()) {
    for (let [attempt, pause] = [1, 50]; ; attempt++, pause = Math.min(2 * pause, 1_000)) {
      const from = clock();
      const { answer, trouble } = await this.#balanced(visit);
      if (!trouble) {
        this.#note(visit, due, answer);
        return { ...answer, attempts: attempt };
      }
      const { name, context, kind, headers } = visit;
      const keyed = headers?.['idempotency-key'] !== undefined;
      this.troubles.push({ at: clock(), name, context, kind, keyed, trouble, ms: Math.round(clock() - from) });
      if (clock() - due > PATIENCE_MS) {
        this.unanswered.push({ at: clock(), name, context, trouble });
        return undefined;
      }
      await sleep(pause * this.random.between(0.5, 1.5));
      await turn();
    }
  }

  /** Any proxy will do for any request, as with a load balancer that keeps no sessions; one that does not listen is passed over. */
  async #balanced(visit) {
    const first = this.spread.below(this.urls.length);
    const order = [...this.urls.slice(first), ...this.urls.slice(0, first)];
    let result;
    for (const url of order) {
      result = await this.#attempt(url, visit);
      if (result.trouble !== 'ECONNREFUSED') break;
    }
    return result;
  }

  async #attempt(url, { method = 'GET', path, headers, body }) {
    let response;
    let text;
    try {
      response = await request(url + path, {
        method,
        headers: { ...headers, ...(body !== undefined && { 'content-type': 'application/json' }) },
        body: body === undefined ? undefined : JSON.stringify(body),
        dispatcher: this.agent,
      });
      text = await response.body.text();
    } catch (error) {
      return { trouble: error.code ?? error.message };
    }
    const retryAfter = response.headers['retry-after'];
    const { statusCode: status } = response;
    let json;
    try {
      json = text ? JSON.parse(text) : undefined;
    } catch {
      return { trouble: `${status} with a broken body` };
    }
    if (status >= 500)
      return { trouble: `${status} ${json?.code ?? ''}${retryAfter ? `, Retry-After ${retryAfter}` : ''}`.trim() };
    if (status === 409 && json?.code === 'IDEMPOTENCY_IN_PROGRESS') return { trouble: '409 in progress' };
    return { answer: { status, json, text, headers: response.headers } };
  }

  #note({ name, context, kind }, due, { headers }) {
    const done = clock();
    this.latencies[kind].push(done - due);
    if (kind === 'command') this.commands.push([context, due, done, name]);
    const served = `${context} ${kind} ${headers['banyan-served-by'] ?? 'unknown'}`;
    this.servedBy[served] = (this.servedBy[served] ?? 0) + 1;
    for (const [, of, side, epoch] of (headers['banyan-consistency'] ?? '').matchAll(/([\w-]+)=(\w+):(\d+)/g)) {
      if (kind !== 'command') break;
      const taker = ((this.takers[of] ??= {})[epoch] ??= side);
      if (taker !== side) this.takers[of][epoch] = 'both';
    }
  }

  progress() {
    const fresh = this.troubles.slice(this.#told);
    this.#told = this.troubles.length;
    return { sent: this.sent, inFlight: this.inFlight, troubles: fresh };
  }

  report(crowd) {
    const of = (values) => ({
      count: values.length,
      p50: quantile(values, 0.5),
      p99: quantile(values, 0.99),
      max: quantile(values, 1),
    });
    return {
      ...this.progress(),
      latencies: { read: of(this.latencies.read), command: of(this.latencies.command) },
      commands: this.commands,
      unanswered: this.unanswered,
      servedBy: this.servedBy,
      takers: this.takers,
      orders: [...crowd.book.orders.values()],
      wrong: [...crowd.book.violations],
      stale: [...crowd.stale],
      byName: crowd.counts,
      ...crowd.knows(),
    };
  }
}

const given = JSON.parse(process.argv[2]);
const load = new Load(given);
const crowd = new Crowd({ ...given, random: randomFrom(given.seed + 1) });
await crowd.enter((visit) => load.send(visit));
let running;
process.on('message', async ({ ask }) => {
  if (ask === 'begin') running = load.run(crowd);
  if (ask === 'finish') {
    await load.finish(running);
    return process.send(load.report(crowd), () => process.exit());
  }
  process.send(load.progress());
});
process.on('disconnect', () => process.exit());
process.send('ready');
