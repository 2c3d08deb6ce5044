import { randomUUID } from 'node:crypto';
import { Book } from '../chaos/customer.mjs';
import { SHOP_ADDRESS, STAFF } from '../support/shop.mjs';

/** What comes how often, of 1000. */
const MIX = [
  ['products', 200],
  ['product', 150],
  ['stock', 180],
  ['cart', 70],
  ['order', 60],
  ['orders', 40],
  ['payment', 10],
  ['shipment', 10],
  ['fill', 120],
  ['checkout', 50],
  ['cancel', 5],
  ['shelve', 80],
  ['describe', 20],
  ['refresh', 5],
];
/** How the payment will go, and how often of 100. */
const METHODS = [
  ['tok_ok', 82],
  ['tok_declined', 8],
  ['tok_3ds', 6],
  ['tok_timeout', 4],
];

/**
 * Everybody who visits the shop. Each visit is one request; who has one under way makes no other, so that it is clear
 * what the next answer has to show.
 */
export class Crowd {
  book = new Book();
  /** Answers that were older than what the same client had written before, or that show a write that got lost. */
  stale = new Map();
  counts = {};
  buyers = [];
  /** SKUs that are not sold, and products that are not in `goods`: who writes them knows all there is to know of them. */
  shelves = [];
  leaflets = [];

  constructor({ random, buyers, goods, own, id }) {
    Object.assign(this, { random, goods, wanted: buyers, id });
    this.shelves = own.map(({ sku }) => ({ sku }));
    this.leaflets = own.map(({ id: productId, version }) => ({ id: productId, version }));
  }

  /** Accounts for everybody. `send` resolves with a final answer. */
  async enter(send) {
    this.send = send;
    this.staff = new Person(STAFF);
    await this.#signIn(this.staff);
    for (const shelf of this.shelves) {
      const { json } = await send({
        ...this.#as(this.staff),
        name: 'stock',
        context: 'inventory',
        kind: 'read',
        path: `/v1/stock/${shelf.sku}`,
      });
      Object.assign(shelf, { version: json.version, onHand: json.onHand });
    }
    for (let n = 0; n < this.wanted; n++) {
      const account = { email: `visitor-${this.id}-${n}@cutover.example`, password: 'correct horse battery' };
      const registered = await send({
        name: 'register',
        context: 'identity',
        kind: 'command',
        method: 'POST',
        path: '/v1/auth/register',
        body: { ...account, name: `Visitor ${n}` },
      });
      if (registered?.status !== 201) throw new Error(`No account: ${registered?.text}`);
      const buyer = Object.assign(new Person(account), { id: registered.json.id, echoes: n % 2 === 0 });
      await this.#signIn(buyer);
      this.buyers.push(buyer);
    }
  }

  /** What has to be found in the databases. */
  knows() {
    const [shelves, leaflets, buyers] = [this.shelves, this.leaflets, this.buyers].map((some) =>
      some.filter(({ unsure }) => !unsure),
    );
    const carts = buyers.map(({ id, cart }) => {
      const lines = [...cart].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([sku, quantity]) => `${quantity} ${sku}`);
      return [id, lines.join(', ')];
    });
    return { shelves, leaflets, carts };
  }

  /** The next visit: what to send, and what to do with the answer, which may take a while. */
  next() {
    let at = this.random.below(1_000);
    const name = MIX.find(([, share]) => (at -= share) < 0)[0];
    const visit = this[`_${name}`]() ?? this._products();
    const { who } = visit;
    if (who) {
      who.busy = true;
      const { settle } = visit;
      visit.settle = (answer) => {
        // Nobody knows whether a write without an answer was done, so nothing can be expected of this one any more.
        who.unsure ||= visit.kind === 'command' && answer === undefined;
        return settle(answer);
      };
      visit.release = () => (who.busy = false);
    }
    this.counts[visit.name] = (this.counts[visit.name] ?? 0) + 1;
    return visit;
  }

  _products() {
    const path = `/v1/products?limit=5&q=${this.random.one(['cup', 'coffee', 'green', 'steel'])}`;
    return read('products', 'catalog', path, (answer) => this.#expect(answer, 200, 'the product list'));
  }

  _product() {
    const leaflet = this.random.chance(0.3) ? this.#idle(this.leaflets) : undefined;
    const id = leaflet?.id ?? this.random.one(this.goods.plenty).id;
    const visit = read('product', 'catalog', `/v1/products/${id}`, (answer) => {
      if (this.#expect(answer, 200, 'a product') && leaflet)
        this.#current('a product', answer.json.version, leaflet.version, answer);
    });
    return leaflet ? { ...visit, ...this.#as(this.staff), who: leaflet } : visit;
  }

  _stock() {
    const shelf = this.random.chance(0.4) ? this.#idle(this.shelves) : undefined;
    const visit = read(
      'stock',
      'inventory',
      `/v1/stock/${shelf?.sku ?? this.random.one(this.goods.plenty).sku}`,
      (answer) => {
        if (this.#expect(answer, 200, 'a stock level') && shelf)
          this.#current('a stock level', answer.json.version, shelf.version, answer);
      },
    );
    return shelf ? { ...visit, ...this.#as(this.staff), who: shelf } : visit;
  }

  _cart() {
    return this.#asBuyer(
      () => true,
      (buyer) =>
        read('cart', 'orders', '/v1/cart', (answer) => {
          if (!this.#expect(answer, 200, 'a cart')) return;
          const shown = answer.json.items.map(({ sku, quantity }) => `${quantity} ${sku}`).toSorted();
          const expected = [...buyer.cart].map(([sku, quantity]) => `${quantity} ${sku}`).toSorted();
          this.#current('a cart', shown.join(), expected.join(), answer);
        }),
    );
  }

  _order() {
    return this.#asBuyer(
      ({ orders }) => orders.length > 0,
      (buyer) => {
        const order = this.random.one(buyer.orders);
        return read('order', 'orders', `/v1/orders/${order.id}`, (answer) => {
          if (!this.#expect(answer, 200, 'an order that was placed')) return;
          order.paymentId = answer.json.payment?.id;
          order.shipmentId = answer.json.shipment?.id;
        });
      },
    );
  }

  _orders() {
    return this.#asBuyer(
      () => true,
      (buyer) =>
        read('orders', 'orders', '/v1/orders?limit=10', (answer) => {
          if (!this.#expect(answer, 200, 'the list of orders')) return;
          const newest = buyer.orders.at(-1)?.id;
          this.#current('the list of orders', answer.json.items[0]?.id, newest, answer);
        }),
    );
  }

  _payment() {
    return this.#part('payment', 'payments', 'paymentId');
  }

  _shipment() {
    return this.#part('shipment', 'shipping', 'shipmentId');
  }

  _fill() {
    return this.#asBuyer(
      () => true,
      (buyer) => {
        const inCart = [...buyer.cart.keys()];
        const good = this.random.chance(0.05) ? this.random.one(this.goods.scarce) : this.random.one(this.goods.plenty);
        const sku = inCart.length >= 3 ? this.random.one(inCart) : good.sku;
        const quantity = 1 + this.random.below(3);
        const visit = command('fill', 'orders', 'PUT', `/v1/cart/items/${sku}`, { quantity }, (answer) => {
          if (this.#expect(answer, 200, 'a cart item')) buyer.cart.set(sku, quantity);
        });
        return { ...visit, key: randomUUID() };
      },
    );
  }

  _checkout() {
    return this.#asBuyer(
      ({ cart }) => cart.size > 0,
      (buyer) => {
        const key = randomUUID();
        const lines = [...buyer.cart].map(([sku, quantity]) => ({ sku, quantity }));
        const method = this.#method();
        const body = { shippingAddress: SHOP_ADDRESS, paymentMethod: method };
        const visit = command('checkout', 'orders', 'POST', '/v1/orders', body, (answer) => {
          if (!this.#expect(answer, 201, 'an order')) return;
          buyer.cart.clear();
          const { id, total } = answer.json;
          buyer.orders.push(this.book.placed({ key, customerId: buyer.id, lines, method, id, total }));
        });
        return { ...visit, key };
      },
    );
  }

  _cancel() {
    return this.#asBuyer(
      ({ orders }) => orders.length > 0,
      (buyer) => {
        const order = buyer.orders.at(-1);
        return command('cancel', 'orders', 'POST', `/v1/orders/${order.id}/cancel`, undefined, (answer) => {
          if (answer?.status === 200) order.cancelled = true;
          else if (answer?.json?.code !== 'ORDER_NOT_CANCELLABLE') this.#expect(answer, 200, 'cancelling an order');
        });
      },
    );
  }

  _shelve() {
    const shelf = this.#idle(this.shelves);
    if (!shelf) return undefined;
    const onHand = (shelf.onHand + 1 + this.random.below(1_000)) % 1_000_000;
    const visit = command('shelve', 'inventory', 'PUT', `/v1/stock/${shelf.sku}`, { onHand }, (answer) => {
      if (!this.#expect(answer, 200, 'setting stock')) return;
      this.#current('the stock that was just set', answer.json.version, shelf.version + 1, answer);
      Object.assign(shelf, { onHand, version: answer.json.version });
    });
    const as = this.#as(this.staff);
    return { ...visit, headers: { ...as.headers, 'idempotency-key': randomUUID() }, who: shelf };
  }

  _describe() {
    const leaflet = this.#idle(this.leaflets);
    if (!leaflet) return undefined;
    const description = `Described anew as ${this.random.below(1e9)}`;
    const visit = command('describe', 'catalog', 'PATCH', `/v1/products/${leaflet.id}`, { description }, (answer) => {
      // Sent twice because an answer got lost: the first one has been done.
      if (answer?.status === 412 && answer.attempts > 1) leaflet.version++;
      else if (this.#expect(answer, 200, 'describing a product')) {
        this.#current('the product that was just described', answer.json.version, leaflet.version + 1, answer);
        leaflet.version = answer.json.version;
      }
    });
    const as = this.#as(this.staff);
    return { ...visit, ...as, headers: { ...as.headers, 'if-match': `"${leaflet.version}"` }, who: leaflet };
  }

  _refresh() {
    const people = [this.staff, ...this.buyers];
    const who = this.#idle([people.toSorted((a, b) => a.signedInAt - b.signedInAt)[0]]);
    if (!who) return undefined;
    const visit = command(
      'refresh',
      'identity',
      'POST',
      '/v1/auth/refresh',
      { refreshToken: who.refreshToken },
      (answer) => {
        // A token whose answer got lost is used up, and using it again ends the session: sign in anew, as clients do.
        if (answer?.status === 401 && answer.attempts > 1) return this.#signIn(who);
        if (this.#expect(answer, 200, 'a new token')) who.signedIn(answer.json);
        return undefined;
      },
    );
    return { ...visit, who };
  }

  async #signIn(who) {
    const { email, password } = who;
    const answer = await this.send(command('login', 'identity', 'POST', '/v1/auth/login', { email, password }));
    if (this.#expect(answer, 200, 'signing in')) who.signedIn(answer.json);
  }

  #part(name, context, field) {
    const has = (order) => order[field];
    return this.#asBuyer(
      ({ orders }) => orders.some(has),
      ({ orders }) =>
        read(
          name,
          context,
          `/v1/${context === 'payments' ? 'payments' : 'shipments'}/${this.random.one(orders.filter(has))[field]}`,
          (answer) => this.#expect(answer, 200, `a ${name} that was seen`),
        ),
    );
  }

  /** A visit of somebody who has none under way and is of the kind asked for. */
  #asBuyer(suits, visitOf) {
    const buyer = this.#idle(this.buyers.filter(suits));
    if (!buyer) return undefined;
    const visit = visitOf(buyer);
    const settle = (answer) => {
      buyer.remember(answer);
      visit.settle(answer);
    };
    const as = this.#as(buyer);
    const headers = visit.key ? { ...as.headers, 'idempotency-key': visit.key } : as.headers;
    return { ...visit, headers, settle, who: buyer };
  }

  #idle(some) {
    const idle = some.filter(({ busy, unsure }) => !busy && !unsure);
    return idle.length > 0 ? this.random.one(idle) : undefined;
  }

  #as(who) {
    return { headers: who.headers };
  }

  #method() {
    let at = this.random.below(100);
    return METHODS.find(([, share]) => (at -= share) < 0)[0];
  }

  #expect(answer, status, what) {
    // Who was never answered is told of apart.
    if (answer && answer.status !== status)
      this.book.wrong(`${what} was answered ${answer.status}: ${answer.text.slice(0, 200)}`);
    return answer?.status === status;
  }

  #current(what, shown, expected, { headers }) {
    if (shown === expected) return;
    const text = `${what} (${headers['banyan-served-by']}) was ${JSON.stringify(shown)} and should be ${JSON.stringify(expected)}`;
    this.stale.set(text, (this.stale.get(text) ?? 0) + 1);
  }
}

class Person {
  cart = new Map();
  orders = [];
  busy = false;
  /** The last consistency token of each context; half of the clients send them back. */
  tokens = new Map();

  constructor(account) {
    Object.assign(this, account);
  }

  signedIn({ accessToken, refreshToken }) {
    Object.assign(this, { accessToken, refreshToken, signedInAt: Date.now() });
  }

  get headers() {
    const tokens =
      this.echoes && this.tokens.size > 0 ? [...this.tokens].map((pair) => pair.join('=')).join(', ') : undefined;
    return { authorization: `Bearer ${this.accessToken}`, ...(tokens && { 'banyan-consistency': tokens }) };
  }

  remember(answer) {
    for (const part of (answer?.headers['banyan-consistency'] ?? '').split(',')) {
      const [context, token] = part.trim().split('=');
      if (token) this.tokens.set(context, token);
    }
  }
}

const read = (name, context, path, settle) => ({ name, context, kind: 'read', path, settle });
const command = (name, context, method, path, body, settle) => ({
  name,
  context,
  kind: 'command',
  method,
  path,
  body,
  settle,
});
