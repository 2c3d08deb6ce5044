import { setTimeout as sleep } from 'node:timers/promises';
import { demoCatalogue } from '@banyan/catalog';
import { catalog, contracts, inventory } from '@banyan/contracts';
import { type Routing, type Stage, gatesTo } from '@banyan/extraction';
import { type Report, mergeReports, requiredOperations } from '@banyan/extraction/parity';
import { DemoAccounts } from '@banyan/identity';
import { type AnyQuery, newId, system } from '@banyan/kernel';
import { type Envelope, Receiver, type Reply, type Whereabouts, clientToken } from '@banyan/messaging';
import { contextNames, eventually } from '@banyan/testing';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Probe } from '../../apps/control-plane/src/probe.js';
import { fingerprint, open, routesIn } from '../security/routes.js';
import { openShop } from '../shop/shop.js';

const shop = openShop({ settings: { BANYAN_DB_CONNECT_TIMEOUT_MS: '20000' } });
const patient = { timeoutMs: 20_000 };
const routes = { host: '127.0.0.1', monolith: 1, service: 2 };

const long = { timeout: 90_000 };

/** Everything that was asked, and how it was answered. */
let asked: { side: 'monolith' | 'service'; envelope: Envelope; reply: Reply }[] = [];
let last: Report | undefined;
let probe: Probe | undefined;
afterEach(() => probe?.stop());

/** A probe whose two sides are the one shop; the service's answers go through `spoil`. */
function start(
  only: readonly string[],
  stage: Stage,
  spoil: (reply: Reply) => Reply | Promise<Reply> = (r) => r,
): void {
  // A call that is still under way when its probe stops ends up with its own.
  const heard: typeof asked = [];
  asked = heard;
  last = undefined;
  const service = { http: [shop.url], rpc: [{ host: routes.host, port: routes.service }] };
  const routing: Routing = {
    revision: 1,
    monolith: { http: [shop.url], rpc: [{ host: routes.host, port: routes.monolith }] },
    contexts: Object.fromEntries(
      only.map((context) => [
        context,
        {
          ...{ stage, owner: stage === 'live' ? ('service' as const) : ('monolith' as const), epoch: 1 },
          ...{ holding: false, since: 'now', service },
        },
      ]),
    ),
  };
  const to = ({ side }: Whereabouts) => ({
    name: 'here',
    deliver: () => Promise.reject(new Error('a probe delivers nothing')),
    giveBack: () => Promise.reject(new Error('a probe delivers nothing')),
    call: async (envelope: Envelope) => {
      const overTheWire = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;
      const answer = overTheWire(await shop.app.get(Receiver).call(overTheWire(envelope)));
      const reply = side === 'service' ? await spoil(answer) : answer;
      heard.push({ side, envelope, reply });
      return reply;
    },
  });
  probe = new Probe({
    ...{ contracts, instance: 'probe', routing: () => routing, transports: { to } },
    report: (report) => (last = report),
    // An answer that takes its time is no fault here.
    mirror: { againAfterMs: [20, 40], timeoutMs: 20_000 },
  });
  probe.start();
}

const evidenceOf = (context: string) => mergeReports(last ? [last] : [], context, 'now');
const contract = (name: string) => contracts.find((each) => each.name === name)!;
const all = contracts.map(({ name }) => name);

beforeAll(async () => {
  const actor = system('test');
  const products = demoCatalogue().slice(0, 120);
  await shop.app.get(clientToken(catalog), { strict: false }).importProducts({ items: products }, { actor });
  const items = products.map(({ sku }) => ({ sku, onHand: 20 }));
  await shop.app.get(clientToken(inventory), { strict: false }).openStock({ items }, { actor });
  await shop.app.get(DemoAccounts, { strict: false }).seed();
  const sku = await shop.offer();
  const ada = await shop.customer();
  await ada.putInCart(sku, 1);
  const { id } = (await ada.order()).expect(201).body;
  await ada.until(id, (order) => order.status === 'confirmed' && order.shipment);
});

describe('The contracts', () => {
  it('name every GET route of the running app, and say rightly which need no token', () => {
    const documents = /^GET \/(docs|openapi\.json)/;
    const gets = routesIn(shop).filter((route) => route.startsWith('GET ') && !documents.test(route));
    const named = contracts.flatMap(({ reads }) => Object.entries<{ public?: boolean }>(reads ?? {}));
    const asRoute = (name: string) => name.replace(/\{(\w+)\}/g, ':$1');
    expect(named.map(([name]) => asRoute(name)).sort()).toEqual(gets.sort());
    const free = open.filter((route) => route.startsWith('GET ') && !documents.test(route));
    expect(named.flatMap(([name, read]) => (read.public ? [asRoute(name)] : [])).sort()).toEqual(free.sort());
  });

  it('name every write of the running app that takes an Idempotency-Key', async () => {
    type Operation = { parameters?: { name: string; in: string }[] };
    const document = (await (await fetch(`${shop.url}/openapi.json`)).json()) as {
      paths: Record<string, Record<string, Operation>>;
    };
    const keyed = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods)
        .filter(([, { parameters }]) => parameters?.some(({ name }) => name === 'Idempotency-Key'))
        .map(([method]) => `${method.toUpperCase()} ${path}`),
    );
    expect(contracts.flatMap(({ keyed = [] }) => keyed as string[]).sort()).toEqual(keyed.sort());
    expect(keyed).not.toEqual([]);
  });

  it('have examples of every query that every side can answer, of which none is refused', async () => {
    for (const { name: context, queries } of contracts)
      for (const [operation, query] of Object.entries<AnyQuery>(queries)) {
        expect(Boolean(query.examples?.length) || query.drawn !== undefined, `${context}.${operation}`).toBe(true);
        for (const input of query.examples ?? []) {
          const at = Date.now();
          const actor = system('probe');
          const envelope = { id: newId(), context, operation, input, actor, at, deadline: at + 5_000 };
          const reply = await shop.app.get(Receiver).call(envelope);
          if (!reply.ok) expect(reply.error.kind, `${context}.${operation}`).toBe('not_found');
        }
      }
  });
});

describe('The probe', () => {
  it('asks everything of both sides, real rows included, and finds one shop equal to itself', long, async () => {
    start(all, 'shadow');
    const seen = (context: string, operation: string) => evidenceOf(context).operations[operation]?.probe.match ?? 0;
    const answers = (context: string, operation: string) =>
      asked.filter(({ envelope }) => envelope.context === context && envelope.operation === operation);
    const nextPage = () =>
      answers('catalog', 'products').some(
        ({ envelope, reply }) => (envelope.input as { cursor?: string }).cursor !== undefined && reply.ok,
      );
    // Not found is an answer; that nothing else was seen would prove nothing.
    const real = (context: string, operation: string) => {
      const about = answers(context, operation);
      return about.some(({ reply }) => reply.ok) && new Set(about.map(({ side }) => side)).size === 2;
    };
    await eventually(
      () => {
        for (const each of contracts) {
          for (const operation of requiredOperations(each))
            expect(seen(each.name, operation), operation).toBeGreaterThanOrEqual(8);
          for (const operation of Object.keys(each.queries))
            expect(real(each.name, operation), `${each.name}.${operation}`).toBe(true);
        }
        return nextPage();
      },
      { timeoutMs: 60_000 },
    );
    await probe!.stop();
    for (const { name } of contracts) {
      const evidence = evidenceOf(name);
      expect(evidence.divergences.filter(({ verdict }) => verdict === 'difference' || verdict === 'error')).toEqual([]);
      for (const counts of Object.values(evidence.operations)) expect(counts.real.match).toBe(0);
    }
  });

  it('only ever queries, and changes no row', long, async () => {
    const moving = [
      ...contextNames.map((context) => `select 1 from ${context}.outbox where state <> 'done'`),
      `select 1 from orders.saga where state not in ('completed', 'compensated', 'cancelled', 'dispatch:waiting')`,
    ];
    await eventually(async () => (await shop.sql(moving.join(' union all '))).length === 0, patient);
    const before = await fingerprint(shop);
    start(all, 'canary');
    await eventually(() => asked.length > 300, { timeoutMs: 60_000 });
    await probe!.stop();
    for (const { envelope } of asked)
      expect(Object.keys(contract(envelope.context).queries)).toContain(envelope.operation);
    expect(await fingerprint(shop)).toEqual(before);
  });

  it('of an idle shop has the evidence that every gate asks for within half a minute', async () => {
    const context = 'inventory';
    const from = performance.now();
    start([context], 'shadow');
    const gates = () =>
      gatesTo('canary', {
        ...{ backfill: { done: true, percent: 100 }, lag: { bytes: 0, ms: 0 }, service: { ready: true } },
        ...{ evidence: evidenceOf(context), required: requiredOperations(contract(context)) },
      });
    await eventually(() => gates().every(({ ok }) => ok), { timeoutMs: 30_000 });
    const seconds = (performance.now() - from) / 1_000;
    await probe!.stop();
    // Not faster than it may be, either: 40 a second.
    expect(evidenceOf(context).traffic.probe.service.requests / seconds).toBeLessThan(60);
  }, 45_000);

  it('tells of a service that answers wrong, or not at all, with the place', long, async () => {
    start(['inventory'], 'shadow', (reply) => {
      if (!reply.ok) return reply;
      const output = reply.output as { available?: number };
      return output.available === undefined
        ? reply
        : { ...reply, output: { ...output, available: output.available + 1 } };
    });
    const told = () => evidenceOf('inventory').divergences.map(({ operation, path }) => `${operation} ${path}`);
    await eventually(() => told().includes('inventory.stockOf /available'), patient);
    await probe!.stop();
    const gone = { code: 'CONTEXT_UNREACHABLE', kind: 'unavailable' as const, message: 'gone' };
    start(['catalog'], 'shadow', () => ({ ok: false, error: gone }));
    await eventually(() => evidenceOf('catalog').divergences.some(({ verdict }) => verdict === 'error'), patient);
    await probe!.stop();
    expect(evidenceOf('catalog').traffic.probe.service.errors).toBeGreaterThan(0);
  });

  it('leaves alone what is not compared, and goes slowly once a context has left', async () => {
    start(all, 'replicate');
    await sleep(300);
    expect(asked).toEqual([]);
    await probe!.stop();
    start(['inventory'], 'live');
    const from = performance.now();
    await sleep(2_000);
    await eventually(() => asked.some(({ side }) => side === 'service'), patient);
    await probe!.stop();
    expect(asked.length).toBeLessThan((6 * (performance.now() - from)) / 1_000);
  });
});
