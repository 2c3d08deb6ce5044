import { randomBytes } from 'node:crypto';
import { type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Telemetry, startTelemetry } from '@banyan/platform/telemetry';
import { eventually } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { everythingAddsUp } from '../shop/invariants.js';
import { type PlacementName, isOnEngines } from '../shop/placements.js';
import { openShop, placements } from '../shop/shop.js';
import { address } from '../shop/visitor.js';

interface Span {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
}

/* One collector for the file: a process starts its telemetry once. */
const spans: Span[] = [];
let collector: Server;
let telemetry: Telemetry;

beforeAll(async () => {
  collector = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      const { resourceSpans = [] } = JSON.parse(body) as {
        resourceSpans?: { scopeSpans: { spans: Span[] }[] }[];
      };
      spans.push(...resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)));
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  const { port } = collector.address() as AddressInfo;
  // None may be left out because others wait.
  vi.stubEnv('OTEL_BSP_MAX_QUEUE_SIZE', '1000000');
  telemetry = await startTelemetry({
    service: 'journey',
    otlpEndpoint: `http://127.0.0.1:${port}`,
    destination: { write: () => undefined },
  });
});
afterAll(() => void collector.close());

const traces = new Map<string, PlacementName>();

describe.each(placements)('The trace of a purchase, %s', (placement) => {
  // A step that has to be tried again begins a trace of its own: none has to.
  const shop = openShop({ placement, settings: { PSP_TIMEOUT_MS: '20000', BANYAN_DB_CONNECT_TIMEOUT_MS: '20000' } });

  it('has one id through HTTP, bus, outbox, inbox and saga', { timeout: 60_000 }, async () => {
    const trace = randomBytes(16).toString('hex');
    traces.set(trace, placement);
    const sku = await shop.offer();
    const buyer = await shop.customer();
    // The first one finds the ways from context to context.
    await buyer.until(await buyer.buy(sku), (order) => order.status === 'confirmed' && order.shipment);
    await everythingAddsUp(shop);
    await buyer.putInCart(sku);
    const placed = await buyer.post(
      '/v1/orders',
      { shippingAddress: address, paymentMethod: 'tok_ok' },
      { 'idempotency-key': trace, traceparent: `00-${trace}-00f067aa0ba902b7-01` },
    );
    const { id } = placed.expect(201).body;
    await buyer.until(id, (order) => order.status === 'confirmed' && order.shipment);
    await everythingAddsUp(shop);

    const told = await shop.sql<{ type: string; traceparent: string }>(
      `select type, traceparent from orders.outbox where aggregate = $1
       union all select type, traceparent from inventory.outbox where data ->> 'orderId' = $2
       union all select type, traceparent from payments.outbox where data ->> 'orderId' = $2`,
      [`order/${id}`, id],
    );
    expect(told.map(({ type }) => type)).toEqual(
      expect.arrayContaining([
        'orders.OrderPlaced',
        'inventory.StockReserved',
        'payments.PaymentAuthorised',
        'inventory.StockCommitted',
        'orders.OrderConfirmed',
      ]),
    );
    expect(new Set(told.map(({ traceparent }) => traceparent.split('-')[1]))).toEqual(new Set([trace]));
  });
});

it('is whole: every span but the first has its parent in the same trace', async () => {
  await telemetry.stop();
  for (const [trace, placement] of traces)
    await eventually(() => {
      const whole = spans.filter(({ traceId }) => traceId === trace);
      const names = new Set(whole.map(({ name }) => name));
      for (const name of [
        'POST /v1/orders',
        'orders.placeOrder',
        'inventory.reserve',
        'payments.authorise',
        'inventory.commit',
        'shipping.createShipment',
        // Nobody delivers what a stream keeps.
        isOnEngines(placement) ? 'take for notifications' : 'deliver to notifications',
      ])
        expect(names).toContain(name);
      const known = new Set([...whole.map(({ spanId }) => spanId), '00f067aa0ba902b7']);
      expect(whole.filter(({ parentSpanId }) => !known.has(parentSpanId!)).map(({ name }) => name)).toEqual([]);
      return true;
    });
});
