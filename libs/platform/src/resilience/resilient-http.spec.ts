import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { type ResilientHttp, type ResilientHttpOptions, resilientHttp } from './index.js';

const opened: (Server | ResilientHttp)[] = [];
afterEach(async () => {
  for (const each of opened.splice(0)) {
    if ('closeAllConnections' in each) each.closeAllConnections();
    await each.close();
  }
});

async function neighbour(
  answer: (request: IncomingMessage, response: ServerResponse, count: number) => void,
  options: Partial<ResilientHttpOptions> = {},
) {
  let count = 0;
  const server = createServer((request, response) => answer(request, response, ++count));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const http = resilientHttp({ baseUrl: `${baseUrl}/base/`, timeoutMs: 60_000, retryDelayMs: 1, ...options });
  opened.push(http, server);
  return { http, server, calls: () => count };
}
const patient = { timeout: 20_000 };
const ok = (response: ServerResponse) => response.end('{"ok":true}');

describe('resilientHttp', () => {
  it('sends JSON under the base path, and answers what came', async () => {
    const { http } = await neighbour((request, response) => {
      response.statusCode = 402;
      response.end(JSON.stringify({ url: request.url, type: request.headers['content-type'] }));
    });
    const answer = await http.call({ method: 'POST', path: '/charges?a=1', json: {} });
    expect([answer.status, answer.json()]).toEqual([402, { url: '/base/charges?a=1', type: 'application/json' }]);
  });

  it.each([
    ['GET', {}],
    ['PUT', {}],
    ['POST', { headers: { 'Idempotency-Key': 'k' } }],
    ['POST', { idempotent: true }],
  ] as const)('repeats a %s that may be repeated (%j)', async (method, more) => {
    const { http, calls } = await neighbour((_, response, count) => {
      response.statusCode = count < 3 ? 503 : 200;
      ok(response);
    });
    expect((await http.call({ method, path: '/', ...more })).status).toBe(200);
    expect(calls()).toBe(3);
  });

  it('never repeats an unkeyed POST, and says that it may have happened', async () => {
    const { http, calls } = await neighbour((request) => request.socket.destroy());
    await expect(http.call({ method: 'POST', path: '/', json: {} })).rejects.toMatchObject({
      reason: 'network',
      mayHaveHappened: true,
    });
    expect(calls()).toBe(1);
  });

  it('gives up an attempt after its time', async () => {
    const { http } = await neighbour(() => {}, { timeoutMs: 30 });
    await expect(http.call({ method: 'POST', path: '/' })).rejects.toMatchObject({
      reason: 'timeout',
      mayHaveHappened: true,
      kind: 'unavailable',
    });
  });

  it('the time limit covers the body too', async () => {
    const { http } = await neighbour((_, response) => void response.write('{'), { timeoutMs: 30 });
    await expect(http.call({ method: 'POST', path: '/' })).rejects.toMatchObject({ reason: 'timeout' });
  });

  it('knows when nothing was sent', async () => {
    const { http, server } = await neighbour((_, response) => ok(response));
    await new Promise((done) => server.close(done));
    await expect(http.call({ method: 'POST', path: '/' })).rejects.toMatchObject({
      reason: 'network',
      mayHaveHappened: false,
    });
  });

  it('opens the circuit when calls fail, and closes it when one succeeds', async () => {
    let down = true;
    const { http, calls } = await neighbour(
      (_, response) => {
        response.statusCode = down ? 500 : 200;
        ok(response);
      },
      { retries: 0, openMs: 60_000 },
    );
    const call = () => http.call({ method: 'GET', path: '/' });
    await expect
      .poll(
        () =>
          call().then(
            () => 'ok',
            (error: { reason: string }) => error.reason,
          ),
        { ...patient, interval: 1 },
      )
      .toBe('open');
    expect(http.circuit).toBe('open');
    const before = calls();
    await expect(call()).rejects.toMatchObject({ reason: 'open', mayHaveHappened: false });
    expect(calls()).toBe(before);
    down = false;
    onTestFinished(() => void vi.useRealTimers());
    vi.setSystemTime(Date.now() + 60_001);
    expect((await call()).status).toBe(200);
    expect(http.circuit).toBe('closed');
  });

  it('refuses what is too much at once', async () => {
    const waiting: ServerResponse[] = [];
    const { http } = await neighbour((_, response) => void waiting.push(response), {
      concurrency: 2,
    });
    let answered = 0;
    for (let n = 0; n < 4; n++) void http.call({ method: 'GET', path: '/' }).then(() => (answered += 1));
    await expect(http.call({ method: 'GET', path: '/' })).rejects.toMatchObject({
      reason: 'full',
      mayHaveHappened: false,
    });
    const finish = () => {
      waiting.splice(0).forEach(ok);
      return answered;
    };
    await expect.poll(finish, { ...patient, interval: 5 }).toBe(4);
  });

  it('an answer that is too large or no JSON is a failure, and is not asked for again', async () => {
    const { http, calls } = await neighbour((_, response) => void response.end('x'.repeat(100)), {
      maxAnswerBytes: 50,
    });
    await expect(http.call({ method: 'GET', path: '/' })).rejects.toMatchObject({ reason: 'answer' });
    expect(calls()).toBe(1);
    const plain = await neighbour((_, response) => void response.end('hello'));
    const answer = await plain.http.call({ method: 'GET', path: '/' });
    expect(() => answer.json()).toThrow(expect.objectContaining({ reason: 'answer' }));
  });

  it('ends when its caller does', async () => {
    const caller = new AbortController();
    const { http } = await neighbour(() => caller.abort());
    await expect(http.call({ method: 'GET', path: '/', signal: caller.signal })).rejects.toMatchObject({
      reason: 'cancelled',
    });
  });
});
