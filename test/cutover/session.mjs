import { join } from 'node:path';
import { Caller } from '../chaos/http.mjs';
import { Verdict } from '../chaos/verdict.mjs';
import { Program } from '../support/program.mjs';
import { randomFrom } from '../support/report.mjs';
import { fillShelves } from '../support/shelves.mjs';
import { Control } from './control.mjs';
import { Findings } from './findings.mjs';
import { CONTEXTS, Stack, until } from './stack.mjs';

/** Products that only the load writes. */
const KEPT = 24;
/** What comes of a fault may begin a little after it. */
const AFTERMATH_MS = 3_000;
/** A watcher that is held up sees who owns a context when it goes on. */
const SEEN_LIMIT_MS = 30_000;
/** Services and bridges stop before their slots go, and a step that fails is tried again after up to half a minute. */
const HOME_LIMIT_MS = 60_000;
/** Between the decision to kill a process and its end. */
const KILLED_MS = 500;
const RESET = /^(UND_ERR_SOCKET|ECONNRESET|EPIPE)$/;

/** A shop with its crowd, and with somebody who watches its owners. */
export class Session {
  findings = new Findings();
  troubles = [];
  /** Times in which requests may fail, because something is being killed: [from, to]. */
  #faulty = [];
  /** Who was killed of a fleet, and when. */
  #struck = [];
  #asking = Promise.resolve();

  constructor({ seed, rate, buyers, say = () => {}, settings, engines, fleet = engines !== undefined }) {
    this.stack = new Stack({ settings, engines });
    this.control = new Control(this.stack);
    Object.assign(this, { seed, rate, buyers, say, fleet, random: randomFrom(seed) });
  }

  /** Resolves when the crowd is there and has not begun. */
  async start() {
    const { stack } = this;
    this.say(`the shop answers after ${((await stack.start()) / 1_000).toFixed(1)} s`);
    this.verdict = new Verdict(stack.adminUrl('monolith'), { orders: new Map() });
    const complain = (text) => this.findings.wrong('answered', text);
    const staff = (this.staff = new Caller(stack.urls, { random: this.random, giveUp: () => false, complain }));
    const { scarce, plenty, kept, stock } = await fillShelves(staff, { keep: KEPT });
    this.stock = stock;
    // Carts take what their own copy of the catalogue knows; it is fed by events.
    if (!(await until(() => this.#rests(), 120_000, 200))) throw new Error('The events of the seed were not delivered');
    await this.#watchOwners();
    await this.#gather({ goods: { scarce, plenty }, own: kept });
  }

  begin() {
    this.#ticking = setInterval(() => void this.#tick().catch(() => {}), 500);
    return this.#askLoad('begin');
  }
  #ticking;

  /** A read that canary sends where the session of staff belongs. */
  async readAsStaff() {
    const { token } = this.staff;
    const response = await fetch(`${this.stack.urls[0]}/v1/stock/${this.stock.keys().next().value}`, {
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(10_000),
    }).catch((error) => ({ status: error.message, text: () => '', headers: new Headers() }));
    await response.text();
    return { status: response.status, servedBy: response.headers.get('banyan-served-by') };
  }

  /** The contexts that may change their owner from now on: they are looked at most often. */
  watch(...contexts) {
    return this.owners.ask({ watch: contexts });
  }

  /** As `control.move`; and who watches the owners has seen the new one, and misses none that is there for a moment. */
  async move(context, stage, more) {
    const ms = await this.control.move(context, stage, more);
    const owner = stage === 'live' ? 'service' : 'monolith';
    await until(async () => (await this.owners.ask({})).open[context] === owner, SEEN_LIMIT_MS, 20);
    return ms;
  }

  async handovers() {
    return (await this.owners.ask({})).handovers;
  }

  /** While `work` goes on, requests may fail and be sent again. */
  async amidFaults(work) {
    const time = [Date.now(), Infinity];
    this.#faulty.push(time);
    try {
      return await work();
    } finally {
      time[1] = Date.now() + AFTERMATH_MS;
    }
  }

  /** `what` is being killed now. */
  struck(what) {
    this.#struck.push({ at: Date.now(), what });
  }

  /** Was something being killed then, or in the `ms` before? */
  isFaulty(at, ms = 0) {
    return this.#faulty.some(([from, to]) => at >= from && at - ms <= to);
  }

  /** Ends the load, waits until nothing moves, and holds what clients were told against what is there. */
  async finish({ restMs = 180_000 } = {}) {
    const { findings, stack } = this;
    clearInterval(this.#ticking);
    const report = await this.#askLoad('finish');
    this.troubles.push(...report.troubles);
    this.say(`load over: ${report.sent} requests, ${report.orders.length} orders; waiting until nothing moves`);
    const watched = await this.owners.ask({ report: 'last' });
    for (const text of watched.wrong) findings.wrong('owner', text);
    this.#judgeAnswers(report);
    await this.#judgeStages();
    if (!(await until(() => this.#rests(), restMs, 250)))
      findings.wrong('books', `still moving: ${JSON.stringify(await this.verdict.stillMoving())}`);
    await this.#judgeBooks(report);
    for (const { at, message } of stack.crashes) if (!this.isFaulty(at)) findings.wrong('processes', message);
    return { report, handovers: watched.handovers, looks: watched.looks };
  }

  async stop({ keepLogs } = {}) {
    clearInterval(this.#ticking);
    await this.load?.kill();
    await this.owners?.kill();
    await this.verdict?.close().catch(() => {});
    const code = await this.stack.stop({ keepLogs });
    if (code !== 0) this.findings.wrong('processes', `banyan up ended with ${code}`);
  }

  async #watchOwners() {
    const { stack } = this;
    const urls = Object.fromEntries(
      CONTEXTS.map((context) => [
        context,
        { monolith: stack.adminUrl('monolith'), service: stack.adminUrl('service', context) },
      ]),
    );
    this.owners = this.#program('owners', { urls });
    await this.owners.start();
  }

  async #gather(goods) {
    const { seed, rate, buyers } = this;
    this.load = this.#program('load', { ...goods, seed, rate, buyers, urls: this.stack.urls, id: seed });
    await this.load.start();
    this.say(`${buyers} customers, ${rate} requests/s`);
  }

  #program(name, given) {
    const program = new Program({
      main: `test/cutover/${name}.mjs`,
      args: [JSON.stringify(given)],
      log: join(this.stack.stateDir, 'logs', `${name}.log`),
    });
    program.onCrash = (how) => how !== 0 && this.findings.wrong('processes', `the ${name} process ended with ${how}`);
    return program;
  }

  /* One question at a time: an answer does not say which question it answers. */
  #askLoad(ask) {
    return (this.#asking = this.#asking.catch(() => {}).then(() => this.load.ask({ ask })));
  }

  async #tick() {
    const { troubles } = await this.#askLoad('progress');
    this.troubles.push(...troubles);
  }

  async #rests() {
    return Object.keys(await this.verdict.stillMoving().catch(() => ({ postgres: 1 }))).length === 0;
  }

  #judgeAnswers(report) {
    const { findings } = this;
    for (const each of this.troubles) {
      const { at, name, trouble, ms } = each;
      if (!this.isFaulty(at, ms)) findings.wrong('answered', `${name}: ${trouble}`);
      // A process that is gone explains a reset and an "unavailable", never an internal error.
      else if (/^500|broken/.test(trouble)) findings.wrong('faults', `${name}: ${trouble}`);
      else if (this.fleet) this.#judgeFleet(each);
    }
    for (const { name, trouble } of report.unanswered)
      findings.wrong('faults', `${name} had no answer after half a minute of asking; at last: ${trouble}`);
    for (const [text, times] of report.wrong) for (let i = 0; i < times; i++) findings.wrong('answered', text);
    for (const [text, times] of report.stale) for (let i = 0; i < times; i++) findings.wrong('ownWrites', text);
    for (const [context, epochs] of Object.entries(report.takers))
      for (const [epoch, side] of Object.entries(epochs))
        if (side === 'both') findings.wrong('owner', `both sides took commands of ${context} at epoch ${epoch}`);
  }

  /**
   * A fleet answers although one of it is killed. What was under way there is lost: with a proxy the connection of the
   * client, with an instance behind it a write without a key (502), which must not be sent twice by anybody but the client.
   * Anything else that cannot be done now is a 503 that says when to come back.
   */
  #judgeFleet({ at, name, trouble, keyed, ms }) {
    // 409: sent again while the first one, whose answer was lost, still runs.
    if (/^503 .*Retry-After \d|^409 in progress/.test(trouble)) return;
    const lost = /^502/.test(trouble) ? (keyed ? [] : ['monolith', 'service']) : RESET.test(trouble) ? ['proxy'] : [];
    const during = this.#struck.filter((each) => this.#noticed(each) >= at - ms - KILLED_MS && each.at <= at);
    if (during.some(({ what }) => lost.includes(what))) return;
    const killed = during.map(({ what }) => what).join(', ') || 'nobody';
    this.findings.wrong('faults', `${name}${keyed ? ' with a key' : ''}: ${trouble}, when ${killed} was killed`);
  }

  /** When `banyan up` had noticed: by then it was over, however long that took. */
  #noticed({ at, what }) {
    return this.stack.crashes.find((each) => each.at >= at && each.message.startsWith(what))?.at ?? at;
  }

  /** Who was killed last before a trouble, and what troubles those were. */
  get troublesByFault() {
    const counts = new Map();
    for (const { at, trouble } of this.troubles) {
      const { what } = this.#struck.findLast((each) => each.at <= at) ?? { what: 'nobody' };
      const kind = trouble.replace(/,? Retry-After.*/, '');
      const of = counts.get(what) ?? {};
      counts.set(what, { ...of, [kind]: (of[kind] ?? 0) + 1 });
    }
    return [...counts].map(([what, of]) => [
      what,
      Object.entries(of)
        .map(([kind, times]) => `${times} × ${kind}`)
        .join(', '),
    ]);
  }

  async #judgeStages() {
    for (const context of CONTEXTS) {
      let status;
      const isHome = async () => {
        status = (await this.control.status(context)) ?? status;
        return status?.stage === 'monolith' && status.target === 'monolith';
      };
      if (!(await until(isHome, HOME_LIMIT_MS, 250)))
        this.findings.wrong('stages', `${context} is at ${status?.stage}, and its target is ${status?.target}`);
    }
    const none = await until(async () => (await this.slots()).length === 0, HOME_LIMIT_MS, 250);
    if (!none) this.findings.wrong('stages', `replication slots are left: ${await this.slots()}`);
  }

  async slots() {
    return (await this.verdict.rows('select slot_name from pg_replication_slots')).map((row) => row.slot_name);
  }

  async #judgeBooks({ orders, shelves, leaflets, carts }) {
    const { findings, stack, verdict } = this;
    verdict.book.orders = new Map(orders.map((order) => [order.id, order]));
    this.outcome = await verdict.reach({ stock: this.stock, journal: stack.journal });
    for (const text of verdict.violations) findings.wrong('books', text);
    const simulator = stack.runtime.processes.find(({ role }) => role === 'psp-simulator');
    const { duplicates } = await (await fetch(`http://127.0.0.1:${simulator.ports[0]}/stats`)).json();
    if (duplicates.length > 0) findings.wrong('books', `the provider reports double charges: ${duplicates}`);
    // What only the load has written is as it was told last.
    const differs = async (what, expected, text) => {
      const rows = new Map((await verdict.rows(text)).map(({ key, value }) => [key, value]));
      for (const [key, value] of expected)
        if ((rows.get(key) ?? '') !== value)
          findings.wrong('ownWrites', `${what} ${key} is ${rows.get(key)} and was answered as ${value}`);
    };
    await differs(
      'stock of',
      shelves.map(({ sku, onHand, version }) => [sku, `${onHand} at ${version}`]),
      `select sku as key, on_hand || ' at ' || version as value from inventory.stock_item`,
    );
    await differs(
      'product',
      leaflets.map(({ id, version }) => [id, `${version}`]),
      `select id::text as key, version::text as value from catalog.product`,
    );
    await differs(
      'the cart of',
      carts,
      `select customer_id::text as key, string_agg(quantity || ' ' || sku, ', ' order by sku collate "C") as value
       from orders.cart_line group by 1`,
    );
  }
}
