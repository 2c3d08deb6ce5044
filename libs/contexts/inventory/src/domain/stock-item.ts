/**
 * The stock of one SKU, in pieces. `onHand` is in the building, `reserved` is the part of it held for orders, `sold`
 * has left with orders, `received` is what was put in over all time.
 */
export interface StockItem {
  readonly sku: string;
  readonly onHand: number;
  readonly reserved: number;
  readonly sold: number;
  readonly received: number;
  readonly version: number;
}

export interface StockLine {
  readonly sku: string;
  readonly quantity: number;
}

/** A SKU that cannot give what is wanted of it. */
export interface Shortage {
  readonly sku: string;
  readonly wanted: number;
  readonly available: number;
}

/**
 * What one piece does to the counters on its way: hold (shelf to order), unhold (back), sell (out of the building),
 * takeBack (a sold piece returns). None changes what was received: goods move, they do not appear.
 */
export const movements = {
  hold: { onHand: 0, reserved: 1, sold: 0 },
  unhold: { onHand: 0, reserved: -1, sold: 0 },
  sell: { onHand: -1, reserved: -1, sold: 1 },
  takeBack: { onHand: 1, reserved: 0, sold: -1 },
} as const;
export type Movement = keyof typeof movements;

export const available = (item: StockItem): number => item.onHand - item.reserved;

/** available + reserved + sold = received, and no counter below zero. */
export const addsUp = (item: StockItem): boolean =>
  available(item) >= 0 && item.reserved >= 0 && item.sold >= 0 && item.onHand + item.sold === item.received;

/** A SKU that nothing was ever put in for. */
export const emptyItem = (sku: string): StockItem => ({
  sku,
  onHand: 0,
  reserved: 0,
  sold: 0,
  received: 0,
  version: 0,
});

/** The item after `quantity` pieces have moved. Throws a RangeError when it does not have them: check first. */
export function move(item: StockItem, movement: Movement, quantity: number): StockItem {
  const { onHand, reserved, sold } = movements[movement];
  const moved = {
    ...item,
    onHand: item.onHand + onHand * quantity,
    reserved: item.reserved + reserved * quantity,
    sold: item.sold + sold * quantity,
    version: item.version + 1,
  };
  if (!addsUp(moved)) throw new RangeError(`${item.sku} has no ${quantity} to ${movement}`);
  return moved;
}

/**
 * The item after a count found `onHand` pieces; the difference counts as put in, or taken out. Undefined when more
 * than that is held for orders. The same count again changes nothing.
 */
export function setOnHand(item: StockItem, onHand: number): StockItem | undefined {
  if (onHand < item.reserved) return undefined;
  if (onHand === item.onHand && item.version > 0) return item;
  return { ...item, onHand, received: item.received + (onHand - item.onHand), version: item.version + 1 };
}

/** Each SKU once, in SKU order: the order in which rows are locked, so that two reservations cannot deadlock. */
export function mergeLines(lines: readonly StockLine[]): StockLine[] {
  const quantities = new Map<string, number>();
  for (const { sku, quantity } of lines) quantities.set(sku, (quantities.get(sku) ?? 0) + quantity);
  return [...quantities].map(([sku, quantity]) => ({ sku, quantity })).sort((a, b) => (a.sku < b.sku ? -1 : 1));
}

/** What keeps `lines` (merged) from being held; empty when all can. A SKU without an item has none available. */
export function shortages(items: readonly StockItem[], lines: readonly StockLine[]): Shortage[] {
  const bySku = new Map(items.map((item) => [item.sku, available(item)]));
  return lines.flatMap(({ sku, quantity }) => {
    const left = bySku.get(sku) ?? 0;
    return left < quantity ? [{ sku, wanted: quantity, available: left }] : [];
  });
}
