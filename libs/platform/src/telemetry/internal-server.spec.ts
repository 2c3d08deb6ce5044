import { afterEach, expect, it, vi } from 'vitest';
import { type InternalServer, startInternalServer } from './internal-server.js';
import { Metrics } from './metrics.js';
import { Readiness } from './readiness.js';

let server: InternalServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function start(metrics = new Metrics(), readiness = new Readiness()) {
  server = await startInternalServer({ port: 0, metrics, readiness });
  const get = async (path: string, init?: RequestInit) => {
    const answer = await fetch(`http://127.0.0.1:${server!.port}${path}`, init);
    return { status: answer.status, text: await answer.text(), type: answer.headers.get('content-type') };
  };
  return { metrics, readiness, get };
}

it('exposes every series that dashboards rely on', async () => {
  const { metrics, get } = await start();
  metrics.collectProcess();
  const reserve = metrics.operation('inventory', 'reserve', 'local');
  reserve.observe('ok', 0.0004);
  reserve.observe('conflict', 0.03);
  metrics.jobRun('inventory.expire').observe('ok', 0.2);
  metrics.httpRequest('GET', '/v1/stock/:sku', 200, 0.002);
  metrics.httpRequest('BREW', '/v1/stock/:sku', 405, 0.002);
  const outbox = vi.fn(() => Promise.resolve({ pending: 3, oldestSeconds: 1.5 }));
  metrics.watchOutbox('orders', outbox);
  metrics.watchInbox('inventory', () => Promise.resolve({ parked: 1 }));
  metrics.watchSagas('orders', () => Promise.resolve([{ saga: 'checkout', state: 'authorising', count: 2 }]));
  metrics.watchPool('orders', () => ({ total: 5, idle: 4, waiting: 0 }));
  metrics.watchPool('catalog', () => ({ total: 1, idle: 1, waiting: 7 }));
  metrics.counter('banyan_things', 'Things', { kind: 'small' }).add(2);
  metrics.gauge('banyan_answer', 'The answer', () => 42);

  const { text, status, type } = await get('/metrics');
  expect(status).toBe(200);
  expect(type).toContain('text/plain; version=0.0.4');
  for (const series of [
    '# TYPE banyan_operation_duration_seconds histogram',
    'banyan_operation_duration_seconds_bucket{context="inventory",operation="reserve",placement="local",outcome="ok",le="0.001"} 1',
    'banyan_operation_duration_seconds_bucket{context="inventory",operation="reserve",placement="local",outcome="conflict",le="0.025"} 0',
    'banyan_operation_duration_seconds_bucket{context="inventory",operation="reserve",placement="local",outcome="conflict",le="+Inf"} 1',
    'banyan_operation_duration_seconds_sum{context="inventory",operation="reserve",placement="local",outcome="ok"} 0.0004',
    'banyan_operation_duration_seconds_count{context="inventory",operation="reserve",placement="local",outcome="conflict"} 1',
    'banyan_job_duration_seconds_count{job="inventory.expire",outcome="ok"} 1',
    'banyan_http_request_duration_seconds_count{method="GET",route="/v1/stock/:sku",status="200"} 1',
    'banyan_http_request_duration_seconds_count{method="OTHER",route="/v1/stock/:sku",status="405"} 1',
    'banyan_outbox_pending{context="orders"} 3',
    'banyan_outbox_oldest_seconds{context="orders"} 1.5',
    'banyan_inbox_parked{context="inventory"} 1',
    'banyan_sagas{context="orders",saga="checkout",state="authorising"} 2',
    'banyan_pool_connections{context="orders"} 5',
    'banyan_pool_idle{context="orders"} 4',
    'banyan_pool_waiting{context="catalog"} 7',
    'banyan_things_total{kind="small"} 2',
    'banyan_answer 42',
    'nodejs_eventloop_lag_p99_seconds',
    'process_resident_memory_bytes',
  ]) {
    expect(text).toContain(series);
  }
  expect(outbox, 'one read for both series').toHaveBeenCalledTimes(1);
});

it('leaves out what cannot be read, says so, and bounds what callers can name', async () => {
  const { metrics, get } = await start();
  metrics.watchOutbox('orders', () => Promise.reject(new Error('database gone')));
  metrics.gauge('banyan_fine', 'Fine', () => 1);
  const meter = metrics.operation('orders', 'place', 'local');
  for (let i = 0; i < 1_000; i++) meter.observe(`message ${i}`, 0.1);
  for (let i = 0; i < 5_000; i++) metrics.counter('banyan_ids', 'A mistake', { id: `${i}` }).add();

  expect((await get('/metrics')).text).toContain('banyan_fine 1');
  const { text } = await get('/metrics');
  expect(text).not.toContain('banyan_outbox_pending{');
  expect(text).toMatch(/banyan_metrics_failures_total\{metric="banyan_outbox_pending"\} [12]/);
  expect(text.match(/banyan_operation_duration_seconds_count/g)!.length).toBeLessThanOrEqual(17);
  expect(text).toContain('outcome="other"');
  expect(text.match(/banyan_ids_total\{/g)!.length).toBeLessThanOrEqual(2_001);
  expect(text).toContain('banyan_ids_total{id="other"} 3000');
});

it('reports the later of two apps in one process, and nothing once it stopped', async () => {
  const metrics = new Metrics();
  const stopFirst = metrics.watchPool('orders', () => ({ total: 1, idle: 1, waiting: 0 }));
  const stopSecond = metrics.watchPool('orders', () => ({ total: 2, idle: 2, waiting: 0 }));
  stopFirst();
  expect(await metrics.expose()).toContain('banyan_pool_connections{context="orders"} 2');
  stopSecond();
  expect(await metrics.expose()).not.toContain('banyan_pool_connections{');
});

it('is ready after the start, while all checks hold, and until it stops', async () => {
  const { readiness, get } = await start();
  let database: 'up' | 'down' | 'stuck' = 'up';
  const ask = vi.fn(async () => {
    if (database === 'down') throw new Error('connect ECONNREFUSED postgres://banyan:pg-s3cret@localhost/');
    if (database === 'stuck') await new Promise(() => undefined);
  });
  const remove = readiness.check('database:orders', ask, { timeoutMs: 80 });
  const ready = async () => {
    const { status, text } = await get('/readyz');
    return { http: status, ...(JSON.parse(text) as { status: string; checks: { status: string; detail?: string }[] }) };
  };

  expect(await ready()).toMatchObject({ http: 503, status: 'starting', checks: [{ status: 'ok' }] });
  readiness.open();
  expect(await ready()).toMatchObject({
    http: 200,
    status: 'ready',
    checks: [{ name: 'database:orders', status: 'ok' }],
  });

  database = 'down';
  const down = await ready();
  expect(down).toMatchObject({ http: 503, status: 'failed', checks: [{ status: 'failed' }] });
  expect(JSON.stringify(down)).not.toContain('pg-s3cret');

  database = 'stuck';
  ask.mockClear();
  const stuck = [readiness.report(), readiness.report(), readiness.report()];
  expect(ask, 'a stuck check is asked once').toHaveBeenCalledTimes(1);
  for (const { status } of await Promise.all(stuck)) expect(status).toBe('failed');
  expect(await ready()).toMatchObject({ http: 503, checks: [{ detail: 'no answer within 80 ms' }] });

  database = 'up';
  expect(await ready()).toMatchObject({ http: 200 });
  readiness.stop();
  expect(await ready()).toMatchObject({ http: 503, status: 'stopping' });
  remove();
  expect(await ready()).toMatchObject({ http: 503, checks: [] });
  expect(await get('/livez')).toMatchObject({ status: 200 });
});

it('names what is degraded, and stays ready', async () => {
  const { readiness, get } = await start();
  readiness.open();
  let fault: string | undefined = 'no connection to nats://banyan:n4ts-s3cret@broker:4222';
  const remove = readiness.degraded('nats', () => fault);
  const { status, text } = await get('/readyz');
  expect(status).toBe(200);
  expect(JSON.parse(text)).toMatchObject({
    status: 'ready',
    degraded: [expect.stringContaining('nats: no connection to')],
  });
  expect(text).not.toContain('n4ts-s3cret');

  fault = undefined;
  expect(JSON.parse((await get('/readyz')).text)).toEqual({ status: 'ready', checks: [] });
  fault = 'again';
  remove();
  expect(JSON.parse((await get('/readyz')).text)).toEqual({ status: 'ready', checks: [] });
});

it('answers nothing else', async () => {
  const { get } = await start();
  expect((await get('/')).status).toBe(404);
  expect((await get('/__proto__')).status).toBe(404);
  expect((await get('/metrics', { method: 'POST' })).status).toBe(405);
  await expect(startInternalServer({ port: server!.port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
});
