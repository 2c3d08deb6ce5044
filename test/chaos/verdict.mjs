import { readFileSync } from 'node:fs';
import pg from 'pg';

const CONTEXTS = ['identity', 'catalog', 'inventory', 'orders', 'payments', 'shipping', 'notifications'];
const SHIPPED = 'delivered';
const each = (text) => CONTEXTS.map((context) => text.replaceAll('$context', context)).join(' union all ');

/* A delivery of an outbox; it has come when its row is in the subscriber's inbox. Between the two lies a stream, if there is one. */
const sent = each(`select event_id, subscriber from $context.outbox where subscriber <> ''`);
const taken = each(`select event_id, '$context' as subscriber from $context.inbox`);

/* What still moves. A payment that was cancelled before the provider heard of it waits two minutes for a request that
   may be on its way; nothing else depends on it. */
const moving = `
  select
    (select count(*) from orders.saga where state not in ('completed', 'compensated', 'cancelled')) as sagas,
    (select count(*) from orders.orders where status in ('pending', 'confirmed', 'shipped')) as orders,
    (select count(*) from inventory.reservation where status = 'held') as reservations,
    (select count(*) from shipping.shipment where status in ('pending', 'dispatched')) as shipments,
    (select count(*) from payments.payment where due_at is not null and not (status = 'cancelled' and provider_ref is null)) as payments,
    (select sum(n) from (${each(`select count(*) as n from $context.outbox where state = 'pending'`)}) o) as events,
    (select count(*) from ((${sent}) except (${taken})) u) as undelivered`;

/** The databases and the provider's books, read once everything has come to rest. */
export class Verdict {
  violations = [];

  constructor(databaseUrl, book) {
    this.pool = new pg.Pool({ connectionString: databaseUrl, max: 2 });
    // Postgres may be killed, or stop, while a connection rests in the pool.
    this.pool.on('error', () => {});
    this.book = book;
  }

  async rows(text, values) {
    return (await this.pool.query(text, values)).rows;
  }

  close() {
    return this.pool.end();
  }

  /** What still moves, by name; empty when nothing does. */
  async stillMoving() {
    const [row] = await this.rows(moving);
    return Object.fromEntries(Object.entries(row).filter(([, count]) => Number(count) > 0));
  }

  /** Holds everything against everything. `stock` is what was put in, by SKU. */
  async reach({ stock, journal }) {
    const orders = await this.rows(`
      select o.id, o.customer_id, o.status, o.total::int as total, o.currency, v.status as shown, v.payment, v.shipment,
        (select jsonb_agg(jsonb_build_object('sku', l.sku, 'quantity', l.quantity) order by l.sku) from orders.order_line l where l.order_id = o.id) as lines
      from orders.orders o left join orders.order_view v on v.order_id = o.id`);
    this.#answered(orders);
    this.#statuses(orders);
    await this.#sagas(orders);
    await this.#stock(orders, stock);
    await this.#ledger(orders);
    this.#provider(orders, journal);
    await this.#payments(orders);
    await this.#events();
    await this.#notifications(orders);
    const count = (status) => orders.filter((order) => order.status === status).length;
    return {
      orders: orders.length,
      ...Object.fromEntries(['delivered', 'rejected', 'cancelled'].map((s) => [s, count(s)])),
    };
  }

  #wrong(rule, found, show) {
    if (found.length === 0) return;
    const shown = found.slice(0, 3).map(show).join('; ');
    this.violations.push(`${rule}: ${found.length} times, such as ${shown}`);
  }

  #answered(orders) {
    const there = new Map(orders.map((order) => [order.id, order]));
    const told = [...this.book.orders.values()];
    this.#wrong(
      'an order was answered 201 and does not exist',
      told.filter(({ id }) => !there.has(id)),
      ({ id }) => id,
    );
    this.#wrong(
      'an order exists that nobody was told of',
      orders.filter(({ id }) => !this.book.orders.has(id)),
      ({ id, status }) => `${id} (${status})`,
    );
    const linesOf = (lines) =>
      JSON.stringify(
        lines.map(({ sku, quantity }) => ({ sku, quantity })).toSorted((a, b) => (a.sku < b.sku ? -1 : 1)),
      );
    const other = told.filter(({ id, customerId, lines, total }) => {
      const order = there.get(id);
      return (
        order &&
        (order.customer_id !== customerId ||
          linesOf(order.lines ?? []) !== linesOf(lines) ||
          order.total !== total.amount)
      );
    });
    this.#wrong(
      'an order is not what was in the cart',
      other,
      ({ id, lines }) => `${id}: ${linesOf(lines)} became ${JSON.stringify(there.get(id).lines)}`,
    );
    const revived = told.filter(({ id, cancelled }) => cancelled && there.get(id)?.status !== 'cancelled');
    this.#wrong('an order was cancelled and went on', revived, ({ id }) => `${id} is ${there.get(id)?.status}`);
  }

  #statuses(orders) {
    const open = orders.filter(({ status }) => !['delivered', 'rejected', 'cancelled'].includes(status));
    this.#wrong('an order has not come to its end', open, ({ id, status }) => `${id} is ${status}`);
    this.#wrong(
      'the read model tells another status',
      orders.filter(({ status, shown }) => status !== shown),
      ({ id, status, shown }) => `${id}: ${shown} for ${status}`,
    );
    const unpaid = orders.filter(
      ({ status, payment, shipment }) =>
        status === SHIPPED && (payment?.status !== 'captured' || shipment?.status !== 'delivered'),
    );
    this.#wrong(
      'a delivered order is shown unpaid or on its way',
      unpaid,
      ({ id, payment, shipment }) => `${id}: ${payment?.status}, ${shipment?.status}`,
    );
  }

  async #sagas(orders) {
    const sagas = await this.rows(`select id, state, last_error from orders.saga`);
    const ends = { delivered: ['completed'], rejected: ['compensated'], cancelled: ['cancelled', 'compensated'] };
    const status = new Map(orders.map((order) => [order.id, order.status]));
    this.#wrong(
      'a saga has not ended',
      sagas.filter(({ state }) => !['completed', 'compensated', 'cancelled'].includes(state)),
      ({ id, state, last_error }) => `${id} in ${state} (${last_error})`,
    );
    this.#wrong(
      'a saga ended otherwise than its order',
      sagas.filter(({ id, state }) => ends[status.get(id)] && !ends[status.get(id)].includes(state)),
      ({ id, state }) => `${id}: ${state}, ${status.get(id)}`,
    );
    if (sagas.length !== orders.length) this.violations.push(`${orders.length} orders have ${sagas.length} sagas`);
  }

  async #stock(orders, stock) {
    const sold = new Map();
    for (const { status, lines } of orders)
      if (status === SHIPPED)
        for (const { sku, quantity } of lines ?? []) sold.set(sku, (sold.get(sku) ?? 0) + quantity);
    const items = await this.rows(
      `select sku, on_hand::int as on_hand, reserved::int as reserved, sold::int as sold, received::int as received from inventory.stock_item`,
    );
    const bad = items.filter(
      (item) =>
        item.on_hand - item.reserved + item.reserved + item.sold !== item.received ||
        (stock.has(item.sku) && item.received !== stock.get(item.sku)) ||
        item.reserved !== 0 ||
        item.on_hand < 0 ||
        item.sold !== (sold.get(item.sku) ?? 0),
    );
    this.#wrong(
      'stock does not add up',
      bad,
      (item) => `${JSON.stringify(item)}, sold with orders ${sold.get(item.sku) ?? 0}, put in ${stock.get(item.sku)}`,
    );
    const reservations = await this.rows(`select order_id as id, status from inventory.reservation`);
    const committed = new Set(reservations.filter(({ status }) => status === 'committed').map(({ id }) => id));
    const delivered = orders.filter(({ status }) => status === SHIPPED);
    this.#wrong(
      'goods left without being taken from stock',
      delivered.filter(({ id }) => !committed.has(id)),
      ({ id }) => id,
    );
    if (committed.size !== delivered.length)
      this.violations.push(`${committed.size} reservations are committed for ${delivered.length} delivered orders`);
  }

  async #ledger(orders) {
    const off = await this.rows(
      `select transaction_id, currency, sum(amount)::int as off from payments.ledger_entry group by 1, 2 having sum(amount) <> 0`,
    );
    this.#wrong('a ledger transaction is off', off, JSON.stringify);
    const balances = await this.rows(
      `select account, currency, sum(amount)::int as balance from payments.ledger_entry group by 1, 2`,
    );
    const total = balances.reduce((sum, { balance }) => sum + balance, 0);
    if (total !== 0) this.violations.push(`the ledger sums to ${total}`);
    const of = (account) =>
      balances.filter((row) => row.account === account).reduce((sum, { balance }) => sum + balance, 0);
    const earned = orders.filter(({ status }) => status === SHIPPED).reduce((sum, order) => sum + order.total, 0);
    if (of('merchant_cash') !== earned)
      this.violations.push(`the ledger has taken ${of('merchant_cash')} for goods of ${earned}`);
    if (of('authorised_funds') !== 0) this.violations.push(`${of('authorised_funds')} are still held on cards`);
    if (of('refunds_payable') !== 0) this.violations.push(`${of('refunds_payable')} are still promised back`);
  }

  /** The provider's own journal: what it was really asked to do. */
  #provider(orders, journal) {
    const charges = chargesOf(journal);
    const order = new Map(orders.map((each) => [each.id, each]));
    this.#wrong(
      'the provider was asked for an order that does not exist',
      [...charges.keys()].filter((id) => !order.has(id)),
      String,
    );
    const of = (id) => charges.get(id) ?? { approved: 0, captures: 0, captured: 0, refunded: 0, held: 0 };
    this.#wrong(
      'a card was charged more than once',
      orders.filter(({ id }) => of(id).approved > 1 || of(id).captures > 1),
      ({ id }) => `${id}: ${JSON.stringify(of(id))}`,
    );
    const wrongly = orders.filter(({ id, status, total }) =>
      status === SHIPPED
        ? of(id).captured !== total || of(id).refunded !== 0 || of(id).captures !== 1
        : of(id).captured !== 0,
    );
    this.#wrong(
      'money was taken for nothing, or goods were given for nothing',
      wrongly,
      ({ id, status, total }) => `${id} (${status}, ${total}): ${JSON.stringify(of(id))}`,
    );
    this.#wrong(
      'money is still held for an order that is over',
      orders.filter(({ id, status }) => status !== SHIPPED && of(id).held !== 0),
      ({ id, status }) => `${id} (${status}): ${JSON.stringify(of(id))}`,
    );
  }

  async #payments(orders) {
    const status = new Map(orders.map((order) => [order.id, order.status]));
    const payments = await this.rows(
      `select p.order_id as id, p.status, p.version, (select count(*)::int from payments.payment_event e where e.payment_id = p.id) as events from payments.payment p`,
    );
    this.#wrong(
      'a payment is not what happened to it',
      payments.filter(({ version, events }) => version !== events),
      JSON.stringify,
    );
    const expected = {
      delivered: ['captured'],
      rejected: ['declined', 'voided', 'cancelled'],
      cancelled: ['declined', 'voided', 'cancelled'],
    };
    this.#wrong(
      'a payment ended otherwise than its order',
      payments.filter((payment) => !expected[status.get(payment.id)]?.includes(payment.status)),
      (payment) => `${payment.id}: ${payment.status}, ${status.get(payment.id)}`,
    );
  }

  async #events() {
    const parked = await this.rows(
      each(`select '$context' as context, type, last_error from $context.outbox where state = 'parked'`),
    );
    this.#wrong('an event is parked', parked, JSON.stringify);
    const pending = await this.rows(
      each(`select '$context' as context, type, last_error from $context.outbox where state = 'pending'`),
    );
    this.#wrong('an event was not delivered', pending, JSON.stringify);
    // Each delivery has its row in the subscriber's inbox, and no row is there that was not sent.
    const sent = await this.rows(
      each(`select event_id || ' ' || subscriber as id, type from $context.outbox where subscriber <> ''`),
    );
    const taken = new Set(
      (await this.rows(each(`select event_id || ' $context' as id from $context.inbox`))).map(({ id }) => id),
    );
    this.#wrong(
      'an event was called delivered and never came',
      sent.filter(({ id }) => !taken.has(id)),
      ({ id, type }) => `${type} ${id}`,
    );
    const known = new Set(sent.map(({ id }) => id));
    this.#wrong(
      'an event came that was never sent',
      [...taken].filter((id) => !known.has(id)),
      String,
    );
    const gaps = await this.rows(
      each(
        `select '$context' as context, aggregate from $context.outbox group by aggregate having count(distinct version) <> max(version) or min(version) <> 1`,
      ),
    );
    this.#wrong('an aggregate has gaps in its versions', gaps, JSON.stringify);
  }

  /** A message is what an event's effect looks like from outside: one for each thing that happened to an order. */
  async #notifications(orders) {
    const messages = await this.rows(
      `select order_id as id, kind, count(*)::int as count from notifications.message where order_id is not null group by 1, 2`,
    );
    this.#wrong(
      'a customer was told twice',
      messages.filter(({ count }) => count > 1),
      ({ id, kind, count }) => `${kind} of ${id}: ${count}`,
    );
    const told = new Set(messages.map(({ id, kind }) => `${id} ${kind}`));
    const due = {
      delivered: ['order-confirmed', 'order-shipped', 'order-delivered'],
      rejected: ['order-rejected'],
      cancelled: ['order-cancelled'],
    };
    const missing = orders
      .flatMap(({ id, status }) => (due[status] ?? []).map((kind) => `${id} ${kind}`))
      .filter((key) => !told.has(key));
    this.#wrong('a customer was not told', missing, String);
    const ends = messages.filter(
      ({ id, kind }) =>
        ['order-delivered', 'order-rejected', 'order-cancelled'].includes(kind) &&
        !due[orders.find((order) => order.id === id)?.status]?.includes(kind),
    );
    this.#wrong('a customer was told what did not happen', ends, ({ id, kind }) => `${kind} of ${id}`);
  }
}

/** What the provider did, by the order it did it for. */
function chargesOf(journal) {
  const charges = new Map();
  const byId = new Map();
  for (const line of readFileSync(journal, 'utf8').split('\n')) {
    if (!line) continue;
    let fact;
    try {
      fact = JSON.parse(line);
    } catch {
      continue; // cut short by a kill, and never acknowledged
    }
    if (fact.type === 'authorisation') {
      const charge = charges.get(fact.reference) ?? { approved: 0, captures: 0, captured: 0, refunded: 0, held: 0 };
      charges.set(fact.reference, charge);
      byId.set(fact.id, { charge, amount: fact.amount });
      if (fact.status === 'authorised')
        Object.assign(charge, { approved: charge.approved + 1, held: charge.held + fact.amount });
      continue;
    }
    const at = byId.get(fact.id);
    if (!at) continue;
    const { charge, amount } = at;
    if (fact.type === 'challenge' && fact.outcome === 'authorised')
      Object.assign(charge, { approved: charge.approved + 1, held: charge.held + amount });
    if (fact.type === 'capture')
      Object.assign(charge, { captures: charge.captures + 1, captured: charge.captured + fact.amount, held: 0 });
    if (fact.type === 'void') charge.held = 0;
    if (fact.type === 'refund') charge.refunded += fact.amount;
  }
  return charges;
}
