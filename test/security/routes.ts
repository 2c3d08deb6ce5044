import { routesOf } from '@banyan/platform/http';
import type { Shop } from '../shop/shop.js';

/** Who gets in without a token: the whole list, reviewed. A route that is not in it must answer 401. */
export const open = [
  'GET /openapi.json',
  'GET /docs',
  'GET /docs/start.js',
  'GET /docs/swagger-ui.css',
  'GET /docs/swagger-ui-bundle.js',
  'GET /docs/favicon-32x32.png',
  'GET /.well-known/jwks.json',
  'POST /v1/auth/register',
  'POST /v1/auth/login',
  'POST /v1/auth/refresh',
  'POST /v1/auth/logout',
  'GET /v1/products',
  'GET /v1/products/:id',
  'GET /v1/stock/:sku',
  // Signed instead.
  'POST /v1/webhooks/psp',
  'POST /v1/webhooks/carrier',
];

/** Who gets in with the role staff (or admin) only. */
export const staffOnly = [
  'POST /v1/products',
  'PATCH /v1/products/:id',
  'POST /v1/products/import',
  'PUT /v1/stock/:sku',
  'POST /v1/payments/:id/refunds',
];

/** Every route that the running app answers, but HEAD, which Fastify adds to each GET. */
export const routesIn = (shop: Shop): string[] => routesOf(shop.app).filter((route) => !route.startsWith('HEAD '));

/** `GET /v1/orders/:id` as method and path, its parameters filled in. */
export function aim(route: string, fill: Readonly<Record<string, string>> = {}) {
  const [method, pattern] = route.split(' ') as ['GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', string];
  const path = pattern.replace(/:(\w+)/g, (_, name: string) => {
    const value = fill[name] ?? { id: '019a0000-0000-7000-8000-000000000001', sku: 'SKU-1' }[name];
    if (value === undefined) throw new Error(`What stands for :${name} in ${route}?`);
    return value;
  });
  return { method, path };
}

/** A checksum of every row of every context: equal means that nothing was written. */
export async function fingerprint(shop: Shop): Promise<Record<string, string>> {
  const tables = await shop.sql<{ name: string }>(
    `select format('%I.%I', table_schema, table_name) as name from information_schema.tables
     where table_type in ('BASE TABLE', 'FOREIGN') and table_schema in
       ('identity', 'catalog', 'inventory', 'orders', 'payments', 'shipping', 'notifications') order by 1`,
  );
  // Tables of services are foreign ones here. A checksum of nothing would always be equal.
  if (tables.length === 0) throw new Error('There is no table to look at');
  // Ordered: a parallel plan gives the parts as they come.
  const query = tables
    .map(
      ({ name }) =>
        `select '${name}' as name, md5(coalesce(string_agg(t::text, chr(10) order by t::text), '')) as sum from ${name} t`,
    )
    .join(' union all ')
    .concat(' order by 1');
  const rows = await shop.sql<{ name: string; sum: string }>(query);
  return Object.fromEntries(rows.map(({ name, sum }) => [name, sum]));
}
