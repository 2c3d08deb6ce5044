import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { SHOP_ADDRESS } from '../support/shop.mjs';
import { Caller } from './http.mjs';

/** How the payment will go, and how often of 100. */
const METHODS = [
  ['tok_ok', 70],
  ['tok_declined', 10],
  ['tok_3ds', 12],
  ['tok_timeout', 8],
];

/**
 * Buys again and again, and notes in `book` what it was told. Its keys are not taken from the seed: a key must never
 * come twice, not even in two runs on one database.
 */
export class Customer {
  constructor({ id, caller, random, book, goods, mayOrder, isOver }) {
    Object.assign(this, { id, caller, random, book, goods, mayOrder, isOver });
  }

  static async register(number, { shop, random, giveUp, book, ...rest }) {
    const complain = (text) => book.wrong(text);
    const caller = new Caller(shop.urls, { random, giveUp, complain });
    const account = { email: `customer-${number}@chaos.example`, password: 'correct horse battery' };
    const registered = await caller.call('POST', '/v1/auth/register', {
      body: { ...account, name: `Customer ${number}` },
    });
    const login = await caller.call('POST', '/v1/auth/login', { body: account });
    if (registered?.status !== 201 || login?.status !== 200)
      throw new Error(`No account: ${registered?.text} ${login?.text}`);
    caller.token = login.json.accessToken;
    return new Customer({ id: registered.json.id, caller, random, book, ...rest });
  }

  async shop() {
    while (!this.isOver()) {
      if (!this.mayOrder()) {
        await sleep(50);
        continue;
      }
      const lines = this.#shoppingList();
      if (!(await this.#fill(lines))) return;
      const order = await this.#order(lines);
      if (!order) continue;
      if (this.random.chance(0.15)) await this.#cancel(order);
      else if (this.random.chance(0.1)) await this.#look(order);
      await sleep(this.random.between(0, 100));
    }
  }

  #shoppingList() {
    const skus = new Set();
    const count = 1 + this.random.below(3);
    while (skus.size < count) skus.add(this.random.one(this.goods.plenty));
    if (this.random.chance(0.15)) skus.add(this.random.one(this.goods.scarce));
    return [...skus].map((sku) => ({ sku, quantity: 1 + this.random.below(3) }));
  }

  async #fill(lines) {
    for (const { sku, quantity } of lines) {
      // With a key: a first try that still runs when its connection is lost must not fill the next cart.
      const answer = await this.caller.call('PUT', `/v1/cart/items/${sku}`, { body: { quantity }, key: randomUUID() });
      if (!answer) return false;
      if (answer.status !== 200)
        this.book.wrong(`putting ${sku} into a cart was answered ${answer.status}: ${answer.text}`);
    }
    return true;
  }

  /** One order of this cart, whatever is tried: now and then a double click, and now and then a second device. */
  async #order(lines) {
    const method = this.#method();
    const devices = this.random.chance(0.1) ? [randomUUID(), randomUUID()] : [randomUUID()];
    const clicks = this.random.chance(0.1) ? 2 : 1;
    const sent = devices.flatMap((key) => Array.from({ length: clicks }, () => ({ key, ...this.#send(key, method) })));
    const answers = [];
    for (const { key, answer } of sent) answers.push({ key, answer: await answer });
    if (answers.some(({ answer }) => answer === undefined)) return undefined;
    // Asked again much later, with a crash or two in between, the answer is still the same.
    if (this.random.chance(0.15)) {
      await sleep(this.random.between(200, 1_500));
      for (const key of devices) answers.push({ key, answer: await this.#send(key, method).answer });
      if (answers.some(({ answer }) => answer === undefined)) return undefined;
    }
    return this.#note(lines, method, answers);
  }

  #send(key, paymentMethod) {
    const body = { shippingAddress: SHOP_ADDRESS, paymentMethod };
    return { answer: this.caller.call('POST', '/v1/orders', { body, key }) };
  }

  #note(lines, method, answers) {
    const placed = new Map();
    const first = new Map();
    for (const { key, answer } of answers) {
      if (answer.status === 201) placed.set(key, answer);
      else if (answer.status !== 409 || answer.json?.code !== 'CART_EMPTY')
        this.book.wrong(`an order was answered ${answer.status}: ${answer.text}`);
      const before = first.get(key);
      if (!before) first.set(key, answer);
      else if (before.status !== answer.status || (answer.status === 201 && before.text !== answer.text))
        this.book.wrong(`one key, two answers: ${before.text} and ${answer.text}`);
      else this.book.replays++;
    }
    if (placed.size !== 1) {
      this.book.wrong(
        `one filled cart became ${placed.size} orders (keys ${[...new Set(answers.map(({ key }) => key))]})`,
      );
      if (placed.size === 0) return undefined;
    }
    let order;
    for (const [key, { json }] of placed)
      order = this.book.placed({ key, customerId: this.id, lines, method, id: json.id, total: json.total });
    return order;
  }

  async #cancel(order) {
    await sleep(this.random.between(0, 600));
    const answer = await this.caller.call('POST', `/v1/orders/${order.id}/cancel`);
    if (answer?.status === 200) {
      order.cancelled = true;
      if (answer.json.status !== 'cancelled') this.book.wrong(`a cancelled order is shown as ${answer.json.status}`);
    } else if (answer && answer.json?.code !== 'ORDER_NOT_CANCELLABLE')
      this.book.wrong(`cancelling was answered ${answer.status}: ${answer.text}`);
  }

  async #look(order) {
    const answer = await this.caller.call('GET', `/v1/orders/${order.id}`);
    if (answer && (answer.status !== 200 || answer.json.id !== order.id))
      this.book.wrong(`an order that was answered 201 is then answered ${answer.status}: ${answer.text}`);
  }

  #method() {
    let at = this.random.below(100);
    return METHODS.find(([, share]) => (at -= share) < 0)[0];
  }
}

/** What customers were told. The verdict holds the databases against it. */
export class Book {
  /** By order id. */
  orders = new Map();
  replays = 0;
  violations = new Map();

  placed(order) {
    if (this.orders.has(order.id)) this.wrong(`order ${order.id} was answered to two keys`);
    this.orders.set(order.id, order);
    return order;
  }

  wrong(text) {
    this.violations.set(text, (this.violations.get(text) ?? 0) + 1);
  }
}
