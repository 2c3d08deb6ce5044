import type { IncomingMessage } from 'node:http';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../config/index.js';
import { fail } from './errors.js';
import { NDJSON } from './ndjson.js';
import type { RateLimits } from './rate-limits.js';

/** Headers that decide who is asking for what: two of them are two opinions, and a proxy may have read the other. */
const singleHeaders = new Set([
  'host',
  'authorization',
  'content-type',
  'content-length',
  'transfer-encoding',
  'idempotency-key',
  'if-match',
  'banyan-signature',
]);

/** Node drops headers past 2,000 in silence, and what was dropped may be the one that mattered. */
const maxHeaders = 200;

/** What Node's parser lets through and a server must not guess about. */
function refuseAmbiguity(raw: IncomingMessage): void {
  const { rawHeaders, url = '' } = raw;
  if (!url.startsWith('/')) throw fail('MALFORMED_REQUEST', 'The request target must be a path');
  if (url.includes('%00')) throw fail('MALFORMED_REQUEST', 'The request target must not contain NUL');
  if (rawHeaders.length > 2 * maxHeaders) throw fail('MALFORMED_REQUEST', `At most ${maxHeaders} headers`);
  const seen = new Set<string>();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] ?? '').toLowerCase();
    if (!singleHeaders.has(name)) continue;
    if (seen.has(name)) throw fail('MALFORMED_REQUEST', `The header ${name} is given twice`);
    seen.add(name);
  }
  const { 'transfer-encoding': transfer, 'content-encoding': encoding } = raw.headers;
  if (transfer !== undefined && transfer.toLowerCase() !== 'chunked')
    throw fail('MALFORMED_REQUEST', 'The only transfer encoding is chunked');
  // A compressed body is a bomb until it is unpacked, and none of our clients needs one.
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity')
    throw fail('UNSUPPORTED_ENCODING', 'Send the body uncompressed');
}

const changesSomething = (method: string): boolean => method !== 'GET' && method !== 'HEAD' && method !== 'OPTIONS';

/** Puts the checks that come before routing, parsing and access in front of every request. */
export function admitRequests(
  server: FastifyInstance,
  config: Config,
  limits: RateLimits,
  servedBy: Config['http']['servedBy'],
): void {
  const { requestTimeoutMs } = config.http;
  server.addHook('onRequest', async (request, reply) => {
    if (servedBy !== 'off') reply.header('banyan-served-by', servedBy);
    refuseAmbiguity(request.raw);
    if (!changesSomething(request.method)) return;
    limitArrival(request.raw, requestTimeoutMs);
    await limits.take('write.address', request.ip);
  });
}

/**
 * A body has to arrive in time. Node's own limit cuts the connection without an answer and knows no exception for
 * uploads, so it is set to theirs and the shorter one is kept here: the error goes to whoever reads the body.
 */
function limitArrival(raw: IncomingMessage, timeoutMs: number): void {
  const { 'content-length': length, 'transfer-encoding': transfer, 'content-type': type = '' } = raw.headers;
  const hasBody = transfer !== undefined || (length !== undefined && length !== '0');
  if (!hasBody || type.startsWith(NDJSON)) return;
  const timer = setTimeout(() => {
    if (raw.complete) return;
    // Nobody reads a body whose request has been refused already: then there is nobody to tell.
    if (raw.listenerCount('error') === 0) raw.destroy();
    else raw.emit('error', fail('REQUEST_TIMEOUT', `The body took longer than ${timeoutMs} ms`));
  }, timeoutMs);
  raw.once('end', () => clearTimeout(timer)).once('close', () => clearTimeout(timer));
}
