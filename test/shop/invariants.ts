import { contextNames, eventually } from '@banyan/testing';
import { expect } from 'vitest';
import type { Shop } from './shop.js';

const inEvery = (contexts: readonly string[], select: (context: string) => string): string =>
  contexts.map(select).join(' union all ');

const undelivered = inEvery(
  contextNames,
  (context) => `select '${context}' as context, type, state, last_error from ${context}.outbox where state <> 'done'`,
);

/** What a stream has taken is done for its outbox, and on its way. */
const onItsWay = `
  (${inEvery(contextNames, (context) => `select event_id, subscriber from ${context}.outbox where subscriber <> ''`)})
  except
  (${inEvery(contextNames, (context) => `select event_id, '${context}' from ${context}.inbox`)})`;

/** A checkout whose parcel nobody has collected yet rests: there is nothing to do until the carrier speaks. */
const unfinished = inEvery(
  contextNames,
  (context) =>
    `select type, id, state, last_error from ${context}.saga
     where state not in ('completed', 'compensated', 'cancelled', 'dispatch:waiting')`,
);

/** Of an order cancelled before its payment began the provider is asked for two minutes whether it knows it after all. */
const unsettled = `select id, status, intents from payments.payment where due_at is not null and status <> 'cancelled'`;

/* All at one moment: what one look finds done may have set off what the next one would have found. */
const moving = { undelivered, onItsWay, unfinished, unsettled };
const unrest = `select ${Object.entries(moving).map(([name, text]) => `(select json_agg(t) from (${text}) t) as "${name}"`)}`;
const rest = Object.fromEntries(Object.keys(moving).map((name) => [name, null]));

/** Sums that must be zero and rows that must not be, by what they would prove wrong. */
const wrong: Record<string, string> = {
  'stock that does not add up: held and sold are not what the reservations say': `
    select i.* from inventory.stock_item i left join (
      select l.sku, coalesce(sum(l.quantity) filter (where r.status = 'held'), 0) as held,
        coalesce(sum(l.quantity) filter (where r.status = 'committed'), 0) as sold
      from inventory.reservation r, jsonb_to_recordset(r.lines) as l(sku text, quantity int) group by l.sku
    ) r using (sku)
    where i.on_hand + i.sold <> i.received or i.reserved > i.on_hand
      or i.reserved <> coalesce(r.held, 0) or i.sold <> coalesce(r.sold, 0)`,
  'a ledger that is not zero per currency': `
    select currency, sum(amount) from payments.ledger_entry group by currency having sum(amount) <> 0`,
  'a ledger transaction that is not zero': `
    select transaction_id, sum(amount) from payments.ledger_entry group by transaction_id, currency having sum(amount) <> 0`,
  'a ledger that says something else than the payments': `
    select p.id, p.captured, p.refunded, cash.amount from payments.payment p left join (
      select payment_id, sum(amount) as amount from payments.ledger_entry where account = 'merchant_cash' group by payment_id
    ) cash on cash.payment_id = p.id
    where p.captured - p.refunded <> coalesce(cash.amount, 0)`,
  'refunds above captures, or captures above authorisations': `
    select * from payments.payment where not (refunded <= captured and captured <= authorised and authorised <= amount)`,
  'an order without the goods it has sold, or with goods it has not': `
    select o.id, o.status, r.status as reservation from orders.orders o left join inventory.reservation r on r.order_id = o.id
    where (o.status in ('confirmed', 'shipped', 'delivered') and r.status is distinct from 'committed')
      or (o.status in ('rejected', 'cancelled') and r.status in ('held', 'committed'))`,
  'an order without the money it is owed, or with money it is not': `
    select o.id, o.status, p.status as payment from orders.orders o left join payments.payment p on p.order_id = o.id
    where (o.status in ('shipped', 'delivered') and p.status not in ('captured', 'partially_refunded', 'refunded'))
      or (o.status = 'confirmed' and p.status is distinct from 'authorised')
      or (o.status in ('rejected', 'cancelled') and p.captured > p.refunded)
      or (o.status in ('rejected', 'cancelled') and p.status in ('authorised', 'requires_action'))`,
  'an order without its parcel, or with one that should not have left': `
    select o.id, o.status, s.status as shipment from orders.orders o left join shipping.shipment s on s.order_id = o.id
    where (o.status = 'shipped' and s.status is distinct from 'dispatched')
      or (o.status = 'delivered' and s.status is distinct from 'delivered')
      or (o.status in ('rejected', 'cancelled') and s.status <> 'cancelled')`,
  'a read model that has fallen behind': `
    select o.id, o.status, v.status as shown, p.status as payment, v.payment as shown_payment
    from orders.orders o left join orders.order_view v on v.order_id = o.id
      left join payments.payment p on p.order_id = o.id
    where o.status is distinct from v.status or o.reason is distinct from v.reason
      or (v.payment is not null and v.payment ->> 'status' <> p.status)`,
};

/**
 * Waits until everything that was set off has come to its end, and proves that all contexts agree, and agree with the
 * payment provider's own books: stock adds up, the ledger is zero, nothing was charged twice or forgotten.
 */
export async function everythingAddsUp(shop: Shop): Promise<void> {
  await eventually(async () => expect((await shop.sql(unrest))[0]).toEqual(rest), {
    timeoutMs: 40_000,
    intervalMs: 50,
  });
  for (const [claim, query] of Object.entries(wrong)) expect(await shop.sql(query), claim).toEqual([]);

  const rows = await shop.sql<{ sku: string; total: string; received: string }>(
    `select sku, (on_hand - reserved) + reserved + sold as total, received from inventory.stock_item`,
  );
  for (const { sku, total } of rows) expect(Number(total), `all pieces of ${sku}`).toBe(shop.putIn.get(sku));

  // A request for money that was under way while its order was cancelled is found and voided by a later round.
  await eventually(() => sameBooks(shop), { timeoutMs: 40_000 });
}

async function sameBooks(shop: Shop): Promise<true> {
  const { duplicates, totals } = await shop.psp.stats();
  expect(duplicates, 'charged twice').toEqual([]);
  const booked = await shop.sql<{ currency: string; captured: string; refunded: string; held: string }>(`
    select currency, sum(captured)::text as captured, sum(refunded)::text as refunded,
      sum(authorised) filter (where status = 'authorised')::text as held
    from payments.payment where currency is not null group by currency`);
  for (const { currency, captured, refunded, held } of booked) {
    const provider = totals[currency] ?? { authorised: 0, captured: 0, voided: 0, refunded: 0 };
    expect(provider, 'at the provider').toMatchObject({ captured: Number(captured), refunded: Number(refunded) });
    const open = provider.authorised - provider.voided - provider.captured;
    expect(open, 'held at the provider for us').toBe(Number(held ?? 0));
  }
  return true;
}

/** The carrier collects what is waiting for it; then everything is at its end, and adds up. */
export async function everythingEnds(shop: Shop): Promise<void> {
  await everythingAddsUp(shop);
  const waiting = await shop.sql<{ tracking_number: string }>(
    `select tracking_number from shipping.shipment where status = 'pending'`,
  );
  for (const { tracking_number } of waiting) (await shop.carrierSays(tracking_number, 'dispatched')).expect(204);
  await everythingAddsUp(shop);
  expect(await shop.sql(`select type, id, state from orders.saga where state = 'dispatch:waiting'`)).toEqual([]);
}
