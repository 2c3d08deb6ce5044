import { Injectable } from '@nestjs/common';
import { orders } from '@banyan/contracts';
import type { Money } from '@banyan/kernel';
import { Database, InjectDatabase } from '@banyan/platform/database';
import type { CartLine } from './domain/cart.js';

interface LineRow extends Record<string, unknown> {
  sku: string;
  quantity: number;
  name: string;
  price: number;
  currency: string;
}

export interface CartRows {
  version: number;
  lines: CartLine[];
}

/* Its row lock is why concurrent changes of one cart are never lost. The lines are read by a second statement,
   whose snapshot is taken once the lock is there: one statement would wait with an old snapshot and miss lines. */
const lockCart = `
  insert into cart as c (customer_id, version, updated_at) values ($1, 1, $2)
  on conflict (customer_id) do update set version = c.version + 1, updated_at = excluded.updated_at
  returning version`;

const putLine = `
  with put as (
    insert into cart_line (customer_id, sku, quantity, added_at)
    select $1, sku, $3, $4 from product where sku = $2
    on conflict (customer_id, sku) do update set quantity = excluded.quantity
    returning sku, quantity, added_at
  ),
  lines as (
    select sku, quantity, added_at from put
    union all
    select sku, quantity, added_at from cart_line where customer_id = $1 and sku <> $2
  )
  select l.sku, l.quantity, p.name, p.price, p.currency
  from lines l join product p using (sku) order by l.added_at, l.sku`;

const removeLine = `
  with gone as (delete from cart_line where customer_id = $1 and sku = $2)
  select l.sku, l.quantity, p.name, p.price, p.currency
  from cart_line l join product p using (sku) where l.customer_id = $1 and l.sku <> $2 order by l.added_at, l.sku`;

/* The lines are asked for by what the locked row says, so the lock comes first. Of many that wait for it one gets
   the lines; the others find them gone, and what was put in meanwhile stays for the next order. */
const takeLines = `
  with locked as (
    update cart set version = version + 1, updated_at = $2 where customer_id = $1 returning customer_id
  ),
  taken as (
    delete from cart_line where customer_id = (select customer_id from locked) returning sku, quantity, added_at
  )
  select t.sku, t.quantity, p.name, p.price, p.currency
  from taken t join product p using (sku) order by t.added_at, t.sku`;

const readCart = `
  select c.version, l.sku, l.quantity, p.name, p.price, p.currency
  from cart c left join (cart_line l join product p using (sku)) using (customer_id)
  where c.customer_id = $1 order by l.added_at, l.sku`;

const rememberProduct = `
  insert into product as p (sku, product_id, name, price, currency, version) values ($1, $2, $3, $4, $5, $6)
  on conflict (sku) do update set product_id = excluded.product_id, name = excluded.name, price = excluded.price,
    currency = excluded.currency, version = excluded.version
  where p.version < excluded.version`;

/** Carts, and the copy of the products that they are priced with. */
@Injectable()
export class CartStore {
  constructor(@InjectDatabase(orders) private readonly db: Database) {}

  async read(customerId: string): Promise<CartRows> {
    const { rows } = await this.db.query<LineRow & { version: number }>(readCart, [customerId]);
    return { version: rows[0]?.version ?? 0, lines: linesOf(rows.filter(({ sku }) => sku !== null)) };
  }

  /** Sets the quantity of one line. No line comes to be for an unknown SKU. */
  async put(customerId: string, sku: string, quantity: number, now: Date): Promise<CartRows> {
    const version = await this.#lock(customerId, now);
    const { rows } = await this.db.query<LineRow>(putLine, [customerId, sku, quantity, now]);
    return { version, lines: linesOf(rows) };
  }

  async remove(customerId: string, sku: string, now: Date): Promise<CartRows> {
    const version = await this.#lock(customerId, now);
    const { rows } = await this.db.query<LineRow>(removeLine, [customerId, sku]);
    return { version, lines: linesOf(rows) };
  }

  /** Empties the cart and tells what was in it: of many that try at once, one gets the lines. */
  async take(customerId: string, now: Date): Promise<CartLine[]> {
    const { rows } = await this.db.query<LineRow>(takeLines, [customerId, now]);
    return linesOf(rows);
  }

  /** Keeps what an event said of a product, unless a later event was kept already. */
  async rememberProduct(product: Product, version: number): Promise<void> {
    const { sku, productId, name, price } = product;
    await this.db.query(rememberProduct, [sku, productId, name, price.amount, price.currency, version]);
  }

  async #lock(customerId: string, now: Date): Promise<number> {
    const { rows } = await this.db.query<{ version: number }>(lockCart, [customerId, now]);
    return rows[0]!.version;
  }
}

interface Product {
  productId: string;
  sku: string;
  name: string;
  price: Money;
}

const linesOf = (rows: LineRow[]): CartLine[] =>
  rows.map(({ sku, name, quantity, price, currency }) => ({
    sku,
    productName: name,
    quantity,
    unitPrice: { amount: price, currency },
  }));
