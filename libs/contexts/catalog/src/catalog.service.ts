import { type NewProduct, type Product, catalog } from '@banyan/contracts';
import { Id } from '@banyan/kernel';
import { type CommandContext, type Handlers, Serves } from '@banyan/messaging';
import { decodeCursor, encodeCursor } from '@banyan/platform/http';
import { z } from 'zod';
import { searchTerms } from './catalog.search.js';
import { CatalogStore } from './catalog.store.js';

type Input<K extends keyof typeof catalog.operations> = z.output<(typeof catalog.operations)[K]['input']>;

/** Where a page ended: how well its last product fitted, and its id. */
const Position = z.tuple([
  z
    .int()
    .min(0)
    .max(2 ** 31 - 1),
  Id,
]);

@Serves(catalog)
export class CatalogService implements Handlers<typeof catalog> {
  constructor(private readonly store: CatalogStore) {}

  async products({ q, category, limit, cursor }: Input<'products'>) {
    const [rank, id] = decodeCursor(cursor, Position) ?? [];
    const hits = await this.store.search({
      terms: q ? searchTerms(q) : undefined,
      category,
      limit: limit + 1,
      after: id === undefined ? undefined : { rank: rank!, id },
    });
    const items = hits.slice(0, limit);
    const last = hits.length > limit ? items.at(-1) : undefined;
    return {
      items: items.map((hit) => hit.product),
      nextCursor: last ? encodeCursor([last.rank, last.product.id]) : null,
    };
  }

  async product({ id }: Input<'product'>) {
    const product = await this.store.find(id);
    if (!product) throw notFound();
    return product;
  }

  async createProduct(input: Input<'createProduct'>, ctx: CommandContext) {
    const product: Product = { id: ctx.newId(), ...input, version: 1, updatedAt: ctx.now.toISOString() };
    if (!(await this.store.create(product)))
      throw catalog.fail('SKU_TAKEN', `There is a product with the SKU ${input.sku}`, { sku: input.sku });
    announce(ctx, 'ProductCreated', product);
    return product;
  }

  async updateProduct({ id, expectedVersion, changes }: Input<'updateProduct'>, ctx: CommandContext) {
    const product = await this.store.update(id, expectedVersion, changes, ctx.now);
    if (!product) {
      if (!(await this.store.find(id))) throw notFound();
      throw catalog.fail('PRODUCT_STALE', 'The product has changed since that version');
    }
    announce(ctx, 'ProductUpdated', product);
    return product;
  }

  async importProducts({ items }: Input<'importProducts'>, ctx: CommandContext) {
    const result = { created: 0, updated: 0, unchanged: items.length };
    for (const wave of wavesOf(items)) {
      const changed = await this.store.importAll(
        wave.map((item) => ({ ...item, id: ctx.newId() })),
        ctx.now,
      );
      for (const { product, created } of changed) {
        result.unchanged -= 1;
        result[created ? 'created' : 'updated'] += 1;
        announce(ctx, created ? 'ProductCreated' : 'ProductUpdated', product);
      }
    }
    return result;
  }
}

const notFound = () => catalog.fail('PRODUCT_NOT_FOUND', 'There is no such product');

function announce(ctx: CommandContext, event: 'ProductCreated' | 'ProductUpdated', product: Product): void {
  const { id: productId, sku, name, category, price } = product;
  ctx.emit(catalog.events[event], productId, { productId, sku, name, category, price });
}

/** The items in groups that name each SKU once, in order: a SKU that comes twice is created and then updated. */
function wavesOf(items: readonly NewProduct[]): NewProduct[][] {
  const waves: NewProduct[][] = [];
  const seen = new Map<string, number>();
  for (const item of items) {
    const wave = seen.get(item.sku) ?? 0;
    seen.set(item.sku, wave + 1);
    (waves[wave] ??= []).push(item);
  }
  return waves;
}
