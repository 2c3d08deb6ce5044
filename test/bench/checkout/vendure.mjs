import { join, relative } from 'node:path';
import { freePort } from '@banyan/testing/servers';
import { Program, root } from '../../support/program.mjs';
import { peersOf } from '../peers.mjs';
import { runCase } from '../rounds.mjs';
import { Connection } from './connection.mjs';

const errors = '... on ErrorResult { errorCode message }';
const documents = {
  login: `mutation ($u: String!, $p: String!) { login(username: $u, password: $p) { __typename ${errors} } }`,
  product: `query ($slug: String!) { product(slug: $slug) { id name slug description facetValues { code name }
    variants { id name sku price priceWithTax currencyCode stockLevel options { code name } } } }`,
  variants: `query ($skip: Int) { products(options: { skip: $skip, take: 100, sort: { id: ASC } }) { items { variants { id } } } }`,
  customer: `mutation ($i: CreateCustomerInput!, $p: String) { createCustomer(input: $i, password: $p) { __typename ${errors} } }`,
  methods: `query { shippingMethods { items { id } } }`,
  add: `mutation ($id: ID!) { addItemToOrder(productVariantId: $id, quantity: 1) { __typename ... on Order { id totalWithTax } ${errors} } }`,
  address: `mutation ($i: CreateAddressInput!) { setOrderShippingAddress(input: $i) { __typename ${errors} } }`,
  shipping: `mutation ($id: [ID!]!) { setOrderShippingMethod(shippingMethodId: $id) { __typename ${errors} } }`,
  arrange: `mutation { transitionOrderToState(state: "ArrangingPayment") { __typename ${errors} } }`,
  pay: `mutation { addPaymentToOrder(input: { method: "standard-payment", metadata: {} }) { __typename ... on Order { state } ${errors} } }`,
  stock: `mutation ($i: [UpdateProductVariantInput!]!) { updateProductVariants(input: $i) { id } }`,
};

async function ask(connection, document, variables, api = 'shop') {
  const answer = await connection.send('POST', `/${api}-api`, { query: documents[document], variables });
  const data = answer.json?.data;
  if (answer.status !== 200 || answer.json?.errors || !data)
    throw new Error(`${document}: ${answer.text.slice(0, 300)}`);
  const [result] = Object.values(data);
  if (result?.errorCode) throw new Error(`${document}: ${result.errorCode} ${result.message}`);
  const token = answer.headers['vendure-auth-token'];
  if (token) connection.headers = { authorization: `Bearer ${token}` };
  return result;
}

/** An empty database filled once; every repetition starts a server on it. */
export async function populateVendure({ postgres, products }) {
  const folder = await peersOf('vendure');
  const databaseUrl = await postgres.database('bench_vendure');
  const env = { BENCH_CASE: JSON.stringify({ databaseUrl, port: await freePort(), products }), NODE_ENV: 'production' };
  await runCase(join(folder, 'populate.mjs'), 'populate', { cwd: folder, env, limitMs: 300_000 });
  return { folder, databaseUrl };
}

/** Vendure, for logged-in customers: five requests a purchase, the fewest it allows. */
export async function vendure({ postgres, products, users, populated: { folder, databaseUrl } }) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const server = new Program({
    main: relative(root, join(folder, 'server.mjs')),
    log: join(postgres.stateDir, 'vendure.log'),
    env: { BENCH_CASE: JSON.stringify({ databaseUrl, port }) },
  });
  const { ms } = await server.start();
  const admin = new Connection(url);
  await ask(admin, 'login', { u: 'bench-admin', p: 'bench-admin-local' }, 'admin');
  const variants = [];
  for (let skip = 0; skip < products; skip += 100)
    variants.push(...(await ask(admin, 'variants', { skip })).items.map(({ variants: [first] }) => first.id));
  const shippingMethod = (await ask(admin, 'methods', {}, 'admin')).items[0].id;
  const email = (i) => `buyer-${i}-${port}@bench.example`;
  for (let i = 0; i < users; i++)
    await ask(
      admin,
      'customer',
      { i: { firstName: 'B', lastName: `${i}`, emailAddress: email(i) }, p: 'password1' },
      'admin',
    );
  const address = {
    fullName: 'Pat Buyer',
    streetLine1: '1 Main Street',
    city: 'Berlin',
    postalCode: '10115',
    countryCode: 'DE',
  };
  const purchase = async (connection, id) => {
    await ask(connection, 'add', { id });
    await ask(connection, 'address', { i: address });
    await ask(connection, 'shipping', { id: [shippingMethod] });
    await ask(connection, 'arrange');
    const { state } = await ask(connection, 'pay');
    if (state !== 'PaymentSettled') throw new Error(`an order is ${state}`);
  };
  return {
    name: 'Vendure 3.7.3',
    databaseUrl,
    startMs: ms,
    pids: [server.pid],
    reader: () => new Connection(url),
    async read(connection, random) {
      const product = await ask(connection, 'product', { slug: `product-${1 + random.below(products)}` });
      if (product.variants.length !== 3) throw new Error('not the product');
    },
    async buyer(i) {
      const connection = new Connection(url);
      await ask(connection, 'login', { u: email(i), p: 'password1' });
      return connection;
    },
    buy: (connection, random) => purchase(connection, random.one(variants)),
    async race(buyers, units) {
      const id = variants.at(-1);
      await ask(admin, 'stock', { i: [{ id, trackInventory: 'TRUE', stockOnHand: units }] }, 'admin');
      const bought = await Promise.allSettled(buyers.map((connection) => purchase(connection, id)));
      return bought.filter(({ status }) => status === 'fulfilled').length;
    },
    async stop() {
      await admin.close();
      await server.stop(8_000);
    },
  };
}
