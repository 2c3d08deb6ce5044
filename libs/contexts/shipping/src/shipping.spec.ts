import { shipping } from '@banyan/contracts';
import { type Role, newId } from '@banyan/kernel';
import type { Client } from '@banyan/messaging';
import { signWebhook } from '@banyan/platform/auth';
import { Database, databaseToken } from '@banyan/platform/database';
import {
  CancellingOrders,
  type ContextApp,
  cancellingOrders,
  contextApp,
  eventually,
  testDatabase,
} from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SimulatedCarrier } from './shipping.carrier.js';
import { ShippingModule } from './shipping.module.js';

/* Real: Postgres, the messaging engine, HTTP. Orders is a stand-in that only cancels. */
const test = testDatabase({ contexts: ['shipping', 'orders'] });
const secret = 'a secret for webhooks in specs';
const hour = 60 * 60 * 1000;

let shop: ContextApp;
let client: Client<typeof shipping>;
let carrier: SimulatedCarrier;

beforeAll(async () => {
  shop = await contextApp({
    test,
    module: ShippingModule,
    contracts: [shipping, cancellingOrders],
    providers: [CancellingOrders],
    settings: {
      CARRIER_WEBHOOK_SECRET: secret,
      // So slow that only the rounds which a test asks for find anything to do.
      BANYAN_CARRIER_DISPATCH_MS: String(hour),
      BANYAN_CARRIER_DELIVERY_MS: String(2 * hour),
    },
  });
  client = shop.client(shipping);
  carrier = shop.app.get(SimulatedCarrier);
});
afterAll(() => shop?.close());

const address = { name: 'Ada', line1: 'Street 1', city: 'Berlin', postalCode: '10115', country: 'DE' };
const ask = () => ({ orderId: newId(), customerId: newId(), address, items: [{ sku: 'MUG-1', quantity: 2 }] });
const of = ({ orderId }: { orderId: string }) => ({ orderId });
/** Just now: what has been under way for hours is delivered by the carrier's own rounds. */
const at = new Date().toISOString();
const tells = (trackingNumber: string | null, status: 'dispatched' | 'delivered') =>
  client.recordCarrierEvent({ eventId: newId(), trackingNumber: trackingNumber!, status, at });
const statusOf = async (orderId: string) =>
  (await test.admin<{ status: string }>('select status from shipping.shipment where order_id = $1', [orderId]))[0]
    ?.status;
const emitted = async (shipmentId: string) =>
  (
    await test.admin<{ type: string }>('select type from shipping.outbox where aggregate = $1 order by version', [
      `shipment/${shipmentId}`,
    ])
  ).map(({ type }) => type.replace('shipping.', ''));

describe('a shipment', () => {
  it('is made once per order, also when asked for at the same time', async () => {
    const order = ask();
    const answers = await Promise.all(Array.from({ length: 6 }, () => client.createShipment(order)));
    expect(new Set(answers.map(({ id }) => id)).size).toBe(1);
    expect(answers[0]).toMatchObject({ ...of(order), status: 'pending', address, items: order.items });
    expect(answers[0]!.trackingNumber).toMatch(/^BYN[0-9A-Z]{20,25}$/);
  });

  it('costs one statement of its own', async () => {
    const db = shop.app.get<Database>(databaseToken('shipping'));
    let least = Infinity;
    for (let i = 0; i < 8; i++) {
      const before = db.statementsExecuted();
      await client.createShipment(ask(), { idempotencyKey: newId() });
      least = Math.min(least, db.statementsExecuted() - before);
    }
    expect(least).toBe(4); // BEGIN, fence and COMMIT are the pipeline's
  });

  it('is dispatched and delivered; told twice or late, nothing happens', async () => {
    const { id, trackingNumber } = await client.createShipment(ask());
    expect(await tells(trackingNumber, 'dispatched')).toEqual({ recorded: true });
    expect(await tells(trackingNumber, 'dispatched')).toEqual({ recorded: false });
    expect(await tells(trackingNumber, 'delivered')).toEqual({ recorded: true });
    expect(await tells(trackingNumber, 'dispatched')).toEqual({ recorded: false });
    expect(await tells(trackingNumber, 'delivered')).toEqual({ recorded: false });
    expect(await emitted(id)).toEqual(['ShipmentDispatched', 'ShipmentDelivered']);
  });

  it('told as delivered first is both', async () => {
    const { id, trackingNumber } = await client.createShipment(ask());
    expect(await tells(trackingNumber, 'delivered')).toEqual({ recorded: true });
    expect(await tells(trackingNumber, 'dispatched')).toEqual({ recorded: false });
    expect(await emitted(id)).toEqual(['ShipmentDispatched', 'ShipmentDelivered']);
  });

  it('of many messages at once publishes each move once', async () => {
    const { id, trackingNumber } = await client.createShipment(ask());
    const messages = Array.from({ length: 10 }, (_, i) => tells(trackingNumber, i % 2 ? 'delivered' : 'dispatched'));
    await Promise.all(messages);
    expect(await emitted(id)).toEqual(['ShipmentDispatched', 'ShipmentDelivered']);
  });

  it('that nobody knows is not dispatched', async () => {
    expect(await tells('BYN0', 'dispatched')).toEqual({ recorded: false });
  });
});

describe('a cancellation', () => {
  it('stops what has not left, and then nothing moves it', async () => {
    const order = ask();
    const { id, trackingNumber } = await client.createShipment(order);
    for (let i = 0; i < 2; i++) expect(await client.cancelShipment(of(order))).toMatchObject({ outcome: 'cancelled' });
    expect(await tells(trackingNumber, 'dispatched')).toEqual({ recorded: false });
    await expect(client.createShipment(order)).rejects.toMatchObject({ code: 'SHIPMENT_CANCELLED' });
    expect(await emitted(id)).toEqual(['ShipmentCancelled']);
  });

  it('comes too late for what has left', async () => {
    const order = ask();
    const { trackingNumber } = await client.createShipment(order);
    await tells(trackingNumber, 'dispatched');
    expect(await client.cancelShipment(of(order))).toMatchObject({ outcome: 'dispatched' });
    expect(await statusOf(order.orderId)).toBe('dispatched');
  });

  it('of an unknown order is remembered', async () => {
    const order = ask();
    for (let i = 0; i < 2; i++) expect(await client.cancelShipment(of(order))).toMatchObject({ outcome: 'none' });
    await expect(client.createShipment(order)).rejects.toMatchObject({ code: 'SHIPMENT_CANCELLED', kind: 'conflict' });
  });

  it('at the same time as the request has one outcome', async () => {
    for (let i = 0; i < 20; i++) {
      const order = ask();
      const [made, stopped] = await Promise.allSettled([
        client.createShipment(order),
        client.cancelShipment(of(order)),
      ]);
      if (stopped.status === 'rejected') throw stopped.reason;
      expect(stopped.value.outcome).toBe(made.status === 'fulfilled' ? 'cancelled' : 'none');
      expect(await statusOf(order.orderId)).toBe('cancelled');
    }
  });

  it('is heard of by the event of the order', async () => {
    const order = ask();
    const { id } = await client.createShipment(order);
    await shop.client(cancellingOrders).cancel(of(order));
    await eventually(async () => (await statusOf(order.orderId)) === 'cancelled', { timeoutMs: 20_000 });
    expect(await emitted(id)).toEqual(['ShipmentCancelled']);
  });
});

describe('the simulated carrier', () => {
  const round = (afterMs: number) => carrier.work({ now: new Date(Date.now() + afterMs) });

  it('collects and delivers when it is time', async () => {
    const [order, stopped] = [ask(), ask()];
    for (const each of [order, stopped]) await client.createShipment(each);
    await client.cancelShipment(of(stopped));
    await round(hour / 2);
    expect(await statusOf(order.orderId)).toBe('pending');
    await round(hour + 1_000);
    expect(await statusOf(order.orderId)).toBe('dispatched');
    await round(2 * hour);
    expect(await statusOf(order.orderId)).toBe('dispatched');
    await round(4 * hour);
    expect(await statusOf(order.orderId)).toBe('delivered');
    expect(await statusOf(stopped.orderId)).toBe('cancelled');
  });

  it('costs one statement when there is nothing to do', async () => {
    await round(20 * hour);
    await round(40 * hour);
    const db = shop.app.get<Database>(databaseToken('shipping'));
    let least = Infinity;
    for (let i = 0; i < 8; i++) {
      const before = db.statementsExecuted();
      await round(0);
      least = Math.min(least, db.statementsExecuted() - before);
    }
    expect(least).toBe(1);
  });
});

describe('over HTTP', () => {
  it('a shipment is shown to its customer and to staff, and does not exist for anybody else', async () => {
    const order = ask();
    const { id, trackingNumber } = await client.createShipment(order);
    await tells(trackingNumber, 'delivered');
    const url = `/v1/shipments/${id}`;
    const seenBy = async (who: string, role: Role) =>
      shop.request('GET', url, { token: await shop.tokenOf(who, role) });
    expect(await seenBy(order.customerId, 'customer')).toMatchObject({
      status: 200,
      body: {
        id,
        status: 'delivered',
        events: [{ status: 'pending' }, { status: 'dispatched', at }, { status: 'delivered', at }],
      },
    });
    expect((await seenBy(newId(), 'staff')).status).toBe(200);
    expect(await seenBy(newId(), 'customer')).toMatchObject({
      status: 404,
      body: { code: 'SHIPMENT_NOT_FOUND' },
    });
    expect((await shop.request('GET', url)).status).toBe(401);
    const staff = await shop.tokenOf(newId(), 'staff');
    expect((await shop.request('GET', '/v1/shipments/1', { token: staff })).status).toBe(400);
  });

  it('the carrier is believed when its signature holds, and counts once', async () => {
    const { id, trackingNumber } = await client.createShipment(ask());
    const body = JSON.stringify({ eventId: newId(), trackingNumber, status: 'dispatched', at });
    const hook = (signature?: string, text = body) =>
      shop.request('POST', '/v1/webhooks/carrier', {
        body: text,
        headers: signature ? { 'banyan-signature': signature } : {},
      });
    const old = new Date(Date.now() - 6 * 60_000);
    for (const bad of [undefined, signWebhook('another secret of some length', body), signWebhook(secret, body, old)])
      expect((await hook(bad)).status).toBe(401);
    const strange = JSON.stringify({ eventId: newId(), trackingNumber, status: 'eaten', at });
    expect((await hook(signWebhook(secret, strange), strange)).status).toBe(400);
    for (let i = 0; i < 2; i++) expect((await hook(signWebhook(secret, body))).status).toBe(204);
    expect(await emitted(id)).toEqual(['ShipmentDispatched']);
  });
});
