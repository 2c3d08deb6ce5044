import { Id, Money, command, defineContext, drawn, event, query } from '@banyan/kernel';
import { z } from 'zod';
import { Instant, NOBODY, PageInput, Sku, page, text } from './common.js';

const Category = text(100).min(1);
const Name = text(200).min(1);
const Description = text(5_000);

export const Product = z
  .strictObject({
    id: Id,
    sku: Sku,
    name: Name,
    description: Description,
    category: Category,
    price: Money,
    version: z.int().min(1),
    updatedAt: Instant,
  })
  .meta({ id: 'Product' });
export type Product = z.output<typeof Product>;

export const NewProduct = z
  .strictObject({ sku: Sku, name: Name, description: Description.default(''), category: Category, price: Money })
  .meta({ id: 'NewProduct' });
export type NewProduct = z.output<typeof NewProduct>;

export const ProductChanges = z
  .strictObject({ name: Name, description: Description, category: Category, price: Money })
  .partial()
  .refine((changes) => Object.keys(changes).length > 0, 'at least one field to change')
  .meta({ id: 'ProductChanges' });
export type ProductChanges = z.output<typeof ProductChanges>;

/** State-carrying: a subscriber can keep its own copy without asking back. */
const ProductState = z.strictObject({ productId: Id, sku: Sku, name: z.string(), category: z.string(), price: Money });

const products = query({
  input: PageInput.extend({ q: z.string().trim().max(200).optional(), category: Category.optional() }),
  output: page(Product),
  errors: { CURSOR_INVALID: 'invalid' },
  examples: [
    { limit: 20 },
    { limit: 100 },
    { q: 'lamp' },
    { q: 'oak shelf', limit: 5 },
    { category: 'Kitchen' },
    { category: 'Lighting', q: 'brass', limit: 3 },
    { q: 'there is nothing of the kind' },
  ],
});

export const catalog = defineContext('catalog', {
  routes: ['/v1/products'],
  reads: {
    'GET /v1/products': { query: 'products', public: true },
    'GET /v1/products/{id}': { query: 'product', public: true },
  },
  queries: {
    products,
    product: query({
      input: z.strictObject({ id: Id }),
      output: Product,
      errors: { PRODUCT_NOT_FOUND: 'not_found' },
      examples: [{ id: NOBODY }],
      drawn: drawn(products, { limit: 50 }, ({ items }) => items.map(({ id }) => ({ input: { id } }))),
    }),
  },
  commands: {
    createProduct: command({
      input: NewProduct,
      output: Product,
      key: (i) => i.sku,
      errors: { SKU_TAKEN: 'conflict' },
    }),
    updateProduct: command({
      input: z.strictObject({ id: Id, expectedVersion: z.int().min(1), changes: ProductChanges }),
      output: Product,
      key: (i) => i.id,
      errors: { PRODUCT_NOT_FOUND: 'not_found', PRODUCT_STALE: 'stale' },
    }),
    /** Creates or updates by SKU; one batch is one transaction. */
    importProducts: command({
      input: z.strictObject({ items: z.array(NewProduct).min(1).max(500) }),
      output: z.strictObject({ created: z.int(), updated: z.int(), unchanged: z.int() }),
      key: () => 'import',
    }),
  },
  events: {
    ProductCreated: event(1, 'product', ProductState),
    ProductUpdated: event(1, 'product', ProductState),
  },
  subscribes: [],
});
