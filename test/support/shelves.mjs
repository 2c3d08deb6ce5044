import { STAFF } from './shop.mjs';

const SCARCE = 5;
const SCARCE_UNITS = 60;
const PLENTY_UNITS = 1_000_000;

/**
 * Puts goods on the shelves, of a few products so little that customers fight for it. `caller` becomes staff. The last
 * `keep` products are left alone. Answers the products, and by SKU what was put in.
 */
export async function fillShelves(caller, { keep = 0 } = {}) {
  caller.token = (await caller.call('POST', '/v1/auth/login', { body: STAFF })).json.accessToken;
  const { items } = (await caller.call('GET', '/v1/products?limit=100')).json;
  const products = items.filter(({ price }) => price.currency === 'EUR');
  const kept = products.splice(products.length - keep);
  const goods = { scarce: products.slice(0, SCARCE), plenty: products.slice(SCARCE) };
  const stock = new Map();
  for (const product of products) {
    const onHand = goods.scarce.includes(product) ? SCARCE_UNITS : PLENTY_UNITS;
    const answer = await caller.call('PUT', `/v1/stock/${product.sku}`, { body: { onHand } });
    if (answer?.status !== 200) throw new Error(`no stock: ${answer?.text}`);
    stock.set(product.sku, onHand);
  }
  return { ...goods, kept, stock };
}
