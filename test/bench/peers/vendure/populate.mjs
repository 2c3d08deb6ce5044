// Fills an empty database: products with three variants each, a shipping and a payment method.
process.env.VENDURE_DISABLE_TELEMETRY = 'true';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const { bootstrap } = await import('@vendure/core');
const { populate } = await import('@vendure/core/cli/index.js');
const { configOf } = await import('./config.mjs');
const given = JSON.parse(process.env.BENCH_CASE);

const columns = [
  'name',
  'slug',
  'description',
  'assets',
  'facets',
  'optionGroups',
  'optionValues',
  'sku',
  'price',
  'taxCategory',
  'stockOnHand',
  'trackInventory',
  'variantAssets',
  'variantFacets',
];
const lines = [columns.join(',')];
for (let i = 1; i <= given.products; i++)
  ['small', 'medium', 'large'].forEach((size, k) => {
    const product = {
      name: `Product ${i}`,
      slug: `product-${i}`,
      description: `Product ${i}. ${'A sentence about it. '.repeat(8)}`,
      facets: `category:Category ${i % 10}`,
      optionGroups: 'size',
    };
    const variant = {
      optionValues: size,
      sku: `SKU-${i}-${k}`,
      price: (10 + (i % 90) + k).toFixed(2),
      taxCategory: 'standard',
      stockOnHand: 10_000_000,
      trackInventory: 'true',
    };
    const row = { ...(k === 0 && product), ...variant };
    lines.push(columns.map((column) => `"${row[column] ?? ''}"`).join(','));
  });
const csv = join(mkdtempSync(join(tmpdir(), 'banyan-bench-')), 'products.csv');
writeFileSync(csv, lines.join('\n'));

const app = await populate(
  () => bootstrap(configOf(given, true)),
  {
    defaultLanguage: 'en',
    defaultZone: 'Europe',
    countries: [{ name: 'Germany', code: 'DE', zone: 'Europe' }],
    taxRates: [{ name: 'Standard Tax', percentage: 20 }],
    shippingMethods: [{ name: 'Standard Shipping', price: 500 }],
    paymentMethods: [
      {
        name: 'Standard Payment',
        handler: { code: 'dummy-payment-handler', arguments: [{ name: 'automaticSettle', value: 'true' }] },
      },
    ],
    collections: [],
    roles: [],
  },
  csv,
);
await app.close();
process.send('populated');
process.exit(0);
