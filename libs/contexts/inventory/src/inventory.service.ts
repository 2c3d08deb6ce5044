import { inventory } from '@banyan/contracts';
import { type CommandContext, type Handlers, type QueryContext, Serves } from '@banyan/messaging';
import { Config } from '@banyan/platform/config';
import type { z } from 'zod';
import { type Decision, type Reservation, commit, expire, release, reserve, tombstone } from './domain/reservation.js';
import { type StockItem, available, emptyItem, mergeLines, setOnHand, shortages } from './domain/stock-item.js';
import { InventoryStore } from './inventory.store.js';

type Input<K extends keyof typeof inventory.operations> = z.output<(typeof inventory.operations)[K]['input']>;

@Serves(inventory)
export class InventoryService implements Handlers<typeof inventory> {
  constructor(
    private readonly store: InventoryStore,
    private readonly config: Config,
  ) {}

  async stockOf({ sku }: Input<'stockOf'>, _ctx?: QueryContext) {
    const item = await this.store.item(sku);
    if (!item) throw inventory.fail('STOCK_NOT_FOUND', `There is no stock of ${sku}`, { sku });
    return toStock(item);
  }

  async overdueReservations({ at, limit }: Input<'overdueReservations'>) {
    return { orderIds: await this.store.overdue(new Date(at), limit) };
  }

  async setStock({ sku, onHand }: Input<'setStock'>, ctx: CommandContext) {
    const known = (await this.store.lockItem(sku)) ?? (await this.openItem(sku, onHand, ctx));
    const item = setOnHand(known, onHand);
    if (!item)
      throw inventory.fail('STOCK_RESERVED', `${known.reserved} of ${sku} are held for orders`, {
        sku,
        reserved: known.reserved,
      });
    if (item !== known) await this.store.saveItem(item, ctx.now);
    return toStock(item);
  }

  async openStock({ items }: Input<'openStock'>, ctx: CommandContext) {
    const opened = items.map(({ sku, onHand }) => setOnHand(emptyItem(sku), onHand)!);
    return { opened: await this.store.addItems(opened, ctx.now) };
  }

  async reserve({ orderId, lines }: Input<'reserve'>, ctx: CommandContext) {
    const expiresAt = new Date(ctx.now.getTime() + this.config.inventory.reservationMs);
    const asked: Reservation = { orderId, status: 'held', lines: mergeLines(lines), expiresAt };
    // Almost always the order is new and the goods are there: that is one statement. Why not, is asked afterwards.
    if (await this.store.hold(asked, ctx.now)) {
      const held = toReservation(asked);
      ctx.emit(inventory.events.StockReserved, orderId, { orderId, lines: held.lines, expiresAt: held.expiresAt });
      return held;
    }
    // Not locked, and not tried again: the attempt may hold some of the items, and who waits while holding deadlocks.
    const known = await this.store.reservation(orderId);
    const decision = reserve(known, asked);
    if (decision.outcome !== 'change') return this.done(known, decision);
    const short = shortages(await this.store.items(asked.lines.map((line) => line.sku)), asked.lines);
    const message = short[0] ? `Only ${short[0].available} of ${short[0].sku} left` : 'Others were faster';
    throw inventory.fail('OUT_OF_STOCK', message, { shortages: short });
  }

  async commit({ orderId }: Input<'commit'>, ctx: CommandContext) {
    const known = await this.store.lockReservation(orderId);
    const decision = commit(known);
    if (decision.outcome === 'change') {
      const { to, movement } = decision;
      await this.store.settle(to, movement, ctx.now);
      ctx.emit(inventory.events.StockCommitted, orderId, { orderId, lines: [...to.lines] });
    }
    return this.done(known, decision);
  }

  async release({ orderId }: Input<'release'>, ctx: CommandContext) {
    const known = await this.lockOrRefuse(orderId, ctx.now);
    const decision = release(known);
    await this.giveBack(decision, 'released', ctx);
    const { status } = decision.outcome === 'change' ? decision.to : known;
    return { orderId, status: status === 'expired' ? ('expired' as const) : ('released' as const) };
  }

  async expire({ orderId }: Input<'expire'>, ctx: CommandContext) {
    const decision = expire(await this.store.lockReservation(orderId), ctx.now);
    await this.giveBack(decision, 'expired', ctx);
    return { orderId, expired: decision.outcome === 'change' };
  }

  /** A new item is added as it will be; when another call was faster, its item is changed instead. */
  private async openItem(sku: string, onHand: number, ctx: CommandContext): Promise<StockItem> {
    const item = setOnHand(emptyItem(sku), onHand)!;
    return (await this.store.addItems([item], ctx.now)) === 1 ? item : (await this.store.lockItem(sku))!;
  }

  /** The reservation, or the tombstone that is written for an unknown order; a reserve under way is waited for. */
  private async lockOrRefuse(orderId: string, now: Date): Promise<Reservation> {
    const known = await this.store.lockReservation(orderId);
    if (known) return known;
    const closed = tombstone(orderId, now);
    return (await this.store.addTombstone(closed, now)) ? closed : (await this.store.lockReservation(orderId))!;
  }

  private async giveBack(decision: Decision, reason: 'released' | 'expired', ctx: CommandContext): Promise<void> {
    if (decision.outcome !== 'change') return;
    const { to, movement } = decision;
    await this.store.settle(to, movement, ctx.now);
    ctx.emit(inventory.events.StockReleased, to.orderId, { orderId: to.orderId, lines: [...to.lines], reason });
  }

  /** The reservation as it is after a decision, or the refusal as an error. */
  private done(known: Reservation | undefined, decision: Decision) {
    if (decision.outcome === 'change') return toReservation(decision.to);
    if (decision.outcome === 'unchanged' && known) return toReservation(known);
    if (known) throw inventory.fail('RESERVATION_CLOSED', `The reservation was ${known.status}`);
    throw inventory.fail('RESERVATION_NOT_FOUND', 'Nothing is reserved for this order');
  }
}

const toStock = (item: StockItem) => ({
  sku: item.sku,
  onHand: item.onHand,
  reserved: item.reserved,
  available: available(item),
  version: item.version,
});

const toReservation = ({ orderId, status, expiresAt, lines }: Reservation) => ({
  orderId,
  status,
  expiresAt: expiresAt.toISOString(),
  lines: [...lines],
});
