import { type NewProduct, type Product, catalog } from '@banyan/contracts';
import { Id } from '@banyan/kernel';
import { type CommandContext, type Handlers, KeptAnswers, type QueryContext, Serves } from '@banyan/messaging';
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

/** How long answers are kept, ms. What changes is forgotten at once: this is for messages that got lost. */
const KEPT = { freshMs: 30_000, staleMs: 10 * 60_000 };
/** The group of everything that shows several products. */
const LISTS = 'lists';

@Serves(catalog)
export class CatalogService implements Handlers<typeof catalog> {
  constructor(
    private readonly store: CatalogStore,
    private readonly kept: KeptAnswers,
  ) {}

  async products(input: Input<'products'>, ctx: QueryContext) {
    const { q, category, limit, cursor } = input;
    // Kept are the pages that everybody opens first. Of searches, of what lies behind and of categories that nobody has
    // there is no end, and anybody may ask for them.
    if (q !== undefined || cursor !== undefined) return this.search(input);
    const key = `list/${limit}/${category ?? ''}`;
    const keepIf = ({ items }: { items: readonly unknown[] }) => items.length > 0;
    return this.kept.answer(catalog, ctx, { ...KEPT, key, groups: [LISTS], keepIf }, () => this.search(input));
  }

  async product({ id }: Input<'product'>, ctx: QueryContext) {
    return this.kept.answer(catalog, ctx, { ...KEPT, key: `product/${id}` }, async () => {
      const product = await this.store.find(id);
      if (!product) throw notFound();
      return product;
    });
  }

  private async search({ q, category, limit, cursor }: Input<'products'>) {
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

  async createProduct(input: Input<'createProduct'>, ctx: CommandContext) {
    const product: Product = { id: ctx.newId(), ...input, version: 1, updatedAt: ctx.now.toISOString() };
    if (!(await this.store.create(product)))
      throw catalog.fail('SKU_TAKEN', `There is a product with the SKU ${input.sku}`, { sku: input.sku });
    announce(ctx, 'ProductCreated', product);
    this.forget([product.id]);
    return product;
  }

  async updateProduct({ id, expectedVersion, changes }: Input<'updateProduct'>, ctx: CommandContext) {
    const product = await this.store.update(id, expectedVersion, changes, ctx.now);
    if (!product) {
      if (!(await this.store.find(id))) throw notFound();
      throw catalog.fail('PRODUCT_STALE', 'The product has changed since that version');
    }
    announce(ctx, 'ProductUpdated', product);
    this.forget([id]);
    return product;
  }

  async importProducts({ items }: Input<'importProducts'>, ctx: CommandContext) {
    const result = { created: 0, updated: 0, unchanged: items.length };
    const changedIds: string[] = [];
    for (const wave of wavesOf(items)) {
      const changed = await this.store.importAll(
        wave.map((item) => ({ ...item, id: ctx.newId() })),
        ctx.now,
      );
      for (const { product, created } of changed) {
        result.unchanged -= 1;
        result[created ? 'created' : 'updated'] += 1;
        changedIds.push(product.id);
        announce(ctx, created ? 'ProductCreated' : 'ProductUpdated', product);
      }
    }
    if (changedIds.length > 0) this.forget(changedIds);
    return result;
  }

  private forget(ids: readonly string[]): void {
    this.kept.forget(catalog, { keys: ids.map((id) => `product/${id}`), groups: [LISTS] });
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
