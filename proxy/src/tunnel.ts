import { type IncomingMessage, STATUS_CODES, request as httpRequest } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Admitted } from './admission.js';
import type { Route } from './directory.js';
import type { Edge } from './edge.js';
import { answerHeaders } from './headers.js';
import { sideOfCommand } from './placement.js';
import { type Refusal, refusalBytes } from './problem.js';
import { failureOf } from './attempt.js';

/** Only WebSocket (RFC 6455) becomes a tunnel; `Upgrade: h2c` and what else there is gets a plain answer. */
export function asksForTunnel({ method, httpVersion, headers }: IncomingMessage): boolean {
  return (
    method === 'GET' &&
    httpVersion === '1.1' &&
    headers.upgrade?.toLowerCase() === 'websocket' &&
    headers['sec-websocket-key'] !== undefined &&
    headers['content-length'] === undefined &&
    headers['transfer-encoding'] === undefined
  );
}

/**
 * Passes a WebSocket on to the owner: nobody knows what will be said on it. The bytes flow only after the upstream has
 * agreed with 101; until then a client could talk to it past every rule here.
 */
export function tunnel(edge: Edge, request: IncomingMessage, client: Duplex, admitted: Admitted, route: Route): void {
  const state = edge.directory.context(route.context)!;
  const side = sideOfCommand(state);
  const { hostname, port } = new URL((side === 'service' ? state.service! : state.monolith).origin);
  const from = performance.now();
  let over = false;
  const finish = (status: number): void => {
    if (over) return;
    over = true;
    edge.meters.answered(route.context, side, true, status, (performance.now() - from) / 1_000);
  };
  const refuseTunnel = (refusal: Refusal): void => {
    finish(refusal.status);
    client.end(refusalBytes(refusal));
  };

  const headers = [...admitted.headers];
  edge.origins.describe(request.socket, admitted.host, request.rawHeaders, headers);
  if (admitted.host !== undefined) headers.push('host', admitted.host);
  headers.push('connection', 'Upgrade', 'upgrade', 'websocket');
  const outgoing = httpRequest({
    ...{ hostname, port, method: 'GET', path: admitted.target, headers, agent: false },
    ...{ setHost: admitted.host === undefined, timeout: edge.limits.requestMs },
  });
  client.on('error', () => outgoing.destroy());
  client.once('close', () => outgoing.destroy());
  outgoing.once('timeout', () => outgoing.destroy(new Error('no answer to the upgrade')));
  outgoing.once('error', (error) => refuseTunnel(failureOf(error, side)));

  outgoing.once('upgrade', (answer, upstream, early) => {
    const lines = answerHeaders(answer.headers);
    lines.push('connection', 'Upgrade', 'upgrade', 'websocket');
    if (edge.servedBy) lines.push('banyan-served-by', side);
    client.write(headOf(101, lines));
    finish(101);
    upstream.setTimeout(0);
    if (early.length > 0) client.write(early);
    upstream.on('error', () => client.destroy()).once('close', () => client.destroy());
    client.removeAllListeners('close').once('close', () => upstream.destroy());
    client.pipe(upstream).pipe(client);
  });

  outgoing.once('response', (answer) => {
    // It does not want to: its answer goes to the client, and the connection with it.
    finish(answer.statusCode ?? 502);
    const lines = answerHeaders(answer.headers).concat('connection', 'close');
    if (edge.servedBy) lines.push('banyan-served-by', side);
    client.write(headOf(answer.statusCode ?? 502, lines));
    answer.pipe(client);
  });
  outgoing.end();
}

function headOf(status: number, list: readonly string[]): string {
  let head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`;
  for (let at = 0; at < list.length; at += 2) head += `${list[at]}: ${list[at + 1]}\r\n`;
  return `${head}\r\n`;
}
