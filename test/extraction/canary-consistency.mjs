import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { staticCanary } from '@banyan/extraction/flags';
import { Caller } from '../chaos/http.mjs';
import { figure, quantile, randomFrom } from '../support/report.mjs';
import { Engines } from '../support/engines.mjs';
import { mintUsers } from '../support/mint.mjs';
import { fillShelves } from '../support/shelves.mjs';
import { Control } from '../cutover/control.mjs';
import { LEG_LIMIT_MS } from '../cutover/cycles.mjs';
import { Findings } from '../cutover/findings.mjs';
import { Stack } from '../cutover/stack.mjs';

const CONTEXTS = ['inventory', 'orders'];
const SIDES = ['monolith', 'service'];
const PERCENT = 50;
/** So many reads of each side say something of it; while a copy is slow its sessions read from the owner, ms. */
const ENOUGH = 100;
const ENOUGH_LIMIT_MS = 60_000;
/** What a session of the service reads while it is held up comes from the owner; asked again after this, ms. */
const AGAIN_MS = [0, 3_000, 10_000];
/** By the hash of the session, as every router does it. */
const canary = staticCanary(Object.fromEntries(CONTEXTS.map((context) => [context, PERCENT])));

/**
 * Half of the sessions read from the services, while the monolith still takes the writes: many clients write and read at
 * once what they wrote, half of them without sending the consistency token back.
 */
export async function perform({ seed, say, pairs, buyers, logs, endings, engines: wanted }) {
  const findings = new Findings(['answered', 'ownWrites', 'processes']);
  const engines = wanted ? await endings.add(() => Engines.start('cutover-engines')) : undefined;
  const stack = new Stack({ engines });
  await endings.add(() => ({
    async stop() {
      const code = await stack.stop({ keepLogs: logs });
      if (code !== 0) findings.wrong('processes', `banyan up ended with ${code}`);
    },
  }));
  say(`the shop answers after ${((await stack.start()) / 1_000).toFixed(1)} s`);
  const random = randomFrom(seed);
  const users = await mintUsers(stack.adminUrl('monolith'), buyers, (n) => [n % 2 === 0 ? 'staff' : 'customer']);
  const caller = new Caller(stack.urls, {
    random,
    giveUp: () => false,
    complain: (text) => findings.wrong('answered', text),
  });
  const { plenty } = await fillShelves(caller);
  const control = new Control(stack);
  for (const context of CONTEXTS) {
    // The copy is there; that it answers alike is not what is looked at, and takes its time where answers come late.
    const copiedMs = await control.move(context, 'shadow', { limitMs: LEG_LIMIT_MS });
    const byForce = { force: true, reason: 'who reads what is looked at' };
    const movedMs = await control.move(context, 'canary', { percent: PERCENT, limitMs: LEG_LIMIT_MS, ...byForce });
    say(`${context} is in canary at ${PERCENT} % after ${((copiedMs + movedMs) / 1_000).toFixed(1)} s`);
  }
  // Every router has heard of it.
  await sleep(2_000);
  const skus = plenty.map(({ sku }) => sku);
  const clients = users.map(
    (user, n) => new Client({ ...user, sku: skus[n % skus.length], echoes: n % 4 < 2, random }),
  );
  const run = new Run({ urls: stack.urls, random, findings, clients, pairs });
  say(`${clients.length} sessions`);
  const from = performance.now();
  await run.write((done) => say(`${done} of ${pairs} pairs`));
  const seconds = (performance.now() - from) / 1_000;
  await run.stickiness();
  run.behind = await counted(stack, 'banyan_proxy_behind');
  for (const context of CONTEXTS) await control.move(context, 'monolith', { limitMs: LEG_LIMIT_MS });
  return { findings, logs, ...figuresOf(run, seconds) };
}

/** What the proxies have counted of this, over all contexts. */
async function counted(stack, metric) {
  let count = 0;
  for (const { ports } of stack.processes('proxy')) {
    const text = await (await fetch(`http://127.0.0.1:${ports[1]}/metrics`)).text();
    const series = text.split('\n').filter((line) => line.startsWith(metric));
    count += series.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }
  return count;
}

/** A session: a user who is signed in, and who may or may not send back the token that a write was answered with. */
class Client {
  constructor(given) {
    Object.assign(this, given);
  }

  get writes() {
    return this.roles.includes('staff') ? 'inventory' : 'orders';
  }

  headers(consistency) {
    return {
      authorization: `Bearer ${this.token}`,
      ...(this.echoes && consistency && { 'banyan-consistency': consistency }),
    };
  }

  sideOf(context) {
    return canary.isService(context, { userId: this.id }) ? 'service' : 'monolith';
  }
}

class Run {
  done = 0;
  stale = 0;
  served = { monolith: 0, service: 0 };
  readMs = { monolith: [], service: [] };
  fellBack = 0;
  /** Clients by side, per context, when they read without having written before. */
  shares = {};

  constructor(given) {
    Object.assign(this, given);
    this.agent = new Agent({ connections: 128, pipelining: 1, keepAliveTimeout: 2_000 });
  }

  async write(tell) {
    let told = 0;
    const until = performance.now() + ENOUGH_LIMIT_MS;
    const isLacking = () => SIDES.some((side) => this.served[side] <= ENOUGH) && performance.now() < until;
    await Promise.all(
      this.clients.map(async (client) => {
        for (let value = 1; this.done < this.pairs || isLacking(); value++) {
          this.done++;
          await (client.writes === 'inventory' ? this.#stock(client, value) : this.#cart(client, value));
          if (this.done - told >= this.pairs / 5) tell((told = this.done));
          if (client.random.chance(0.2)) await sleep(client.random.between(0, 60));
        }
      }),
    );
  }

  async #stock(client, value) {
    const path = `/v1/stock/${client.sku}`;
    const onHand = 1_000 + (value % 50_000);
    const written = await this.#send(client, 'PUT', path, { onHand });
    await this.#read(client, 'inventory', path, written, ({ version }) => version >= written.json?.version);
  }

  async #cart(client, value) {
    const quantity = 1 + (value % 50);
    const written = await this.#send(client, 'PUT', `/v1/cart/items/${client.sku}`, { quantity });
    await this.#read(client, 'orders', '/v1/cart', written, ({ items }) =>
      items.some((item) => item.sku === client.sku && item.quantity === quantity),
    );
  }

  async #read(client, context, path, written, isCurrent) {
    const from = performance.now();
    const answer = await this.#send(client, 'GET', path, undefined, written.headers?.['banyan-consistency']);
    if (answer.status !== 200) return;
    const side = answer.headers['banyan-served-by'];
    this.served[side]++;
    this.readMs[side].push(performance.now() - from);
    this.#judgeSide(client, context, side);
    if (isCurrent(answer.json)) return;
    this.stale++;
    this.findings.wrong('ownWrites', `${context} was read from the ${side} older than what had just been written`);
  }

  /** The owner may answer for a copy that is late; nobody answers for the owner. */
  #judgeSide(client, context, side) {
    const own = client.sideOf(context);
    if (side === own) return;
    if (own === 'service') this.fellBack++;
    else this.findings.wrong('ownWrites', `a session of ${context} that belongs to the monolith read from the service`);
  }

  /** Asked again after a while, when every write has arrived: then a session has one side only. */
  async stickiness() {
    const { fellBack } = this;
    await sleep(1_500);
    for (const context of CONTEXTS) {
      const share = (this.shares[context] = { monolith: 0, service: 0 });
      const asked = this.clients.map(async (client) => {
        const sides = await this.#sidesOf(client, context);
        if (sides.size > 1) this.findings.wrong('ownWrites', `a session of ${context} was sent to both sides`);
        share[[...sides][0]]++;
      });
      await Promise.all(asked);
    }
    this.fellBack = fellBack;
    for (const [context, share] of Object.entries(this.shares))
      if (SIDES.some((side) => share[side] === 0))
        this.findings.wrong('ownWrites', `all sessions of ${context} were sent to one side: ${JSON.stringify(share)}`);
  }

  /** Who answers eight reads in a row; of the last eight, when some came from the owner in the copy's stead. */
  async #sidesOf(client, context) {
    const path = context === 'orders' ? '/v1/cart' : `/v1/stock/${client.sku}`;
    const own = client.sideOf(context);
    let sides;
    for (const pause of AGAIN_MS) {
      if (pause > 0) await sleep(pause);
      sides = new Set();
      for (let n = 0; n < 8; n++) {
        const side = (await this.#send(client, 'GET', path)).headers?.['banyan-served-by'];
        sides.add(side);
        if (side) this.#judgeSide(client, context, side);
      }
      if (sides.size === 1 && sides.has(own)) break;
    }
    if (!sides.has(own)) this.findings.wrong('ownWrites', `a session of ${context} never read from its side`);
    return sides;
  }

  async #send(client, method, path, body, consistency) {
    const answer = await request(this.random.one(this.urls) + path, {
      method,
      headers: { ...client.headers(consistency), ...(body && { 'content-type': 'application/json' }) },
      body: body && JSON.stringify(body),
      dispatcher: this.agent,
    }).catch((error) => ({ trouble: error.code ?? error.message }));
    const text = await answer.body?.text();
    const name = `${method} ${path.replace(/[^/]+$/, '…')}`;
    if (answer.statusCode !== 200)
      this.findings.wrong('answered', `${name}: ${answer.trouble ?? `${answer.statusCode} ${text}`}`);
    return {
      status: answer.statusCode,
      headers: answer.headers,
      json: text?.startsWith('{') ? JSON.parse(text) : undefined,
    };
  }
}

function figuresOf(run, seconds) {
  const { done, stale, served, fellBack, behind, shares } = run;
  const figures = { pairs: done, stale, served, fellBack, behind, shares, perSecond: done / seconds };
  return {
    figures,
    rows: [
      ['write-then-read pairs, and of them stale', `${figure(done, 0)}, ${stale}`],
      ['pairs a second', figure(figures.perSecond, 0)],
      ['read from the monolith / from a service', `${figure(served.monolith, 0)} / ${figure(served.service, 0)}`],
      ...SIDES.map((side) => [
        `such a read from the ${side}: p50 / p99 ms`,
        [0.5, 0.99].map((q) => figure(quantile(run.readMs[side], q))).join(' / '),
      ]),
      ['sent to the owner, of a session of the service', figure(fellBack, 0)],
      ['… because the service had not got the write within 50 ms', figure(behind, 0)],
      ...Object.entries(shares).map(([context, share]) => [
        `sessions of ${context}: monolith / service`,
        `${share.monolith} / ${share.service}`,
      ]),
    ],
  };
}
