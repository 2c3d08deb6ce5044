import type { IncomingMessage } from 'node:http';
import { connectionOptions, headerName } from './headers.js';
import { normalise } from './paths.js';
import { malformed, type Refusal } from './problem.js';

/** A request that may go on: in one reading only, and without what a client has no right to say. */
export interface Admitted {
  method: string;
  /** Without the query, normalised: what routes are matched with. */
  path: string;
  /** Path and query as the upstream gets them. */
  target: string;
  /** GET and HEAD only read. Whatever else is a command. */
  reads: boolean;
  /** Flat list, names in lower case; without Host and framing, which go out as we read them. */
  headers: string[];
  host: string | undefined;
  body: 'none' | 'sized' | 'chunked';
  /** Bytes; 0 unless `sized`. */
  length: number;
  /** An upload: read for as long as it comes, and not bounded here. */
  upload: boolean;
  /** The client waits for `100 Continue` before it sends the body. */
  expects: boolean;
  authorization: string | undefined;
  cookie: string | undefined;
  session: string | undefined;
  /** It has an Idempotency-Key. */
  keyed: boolean;
  consistency: string | undefined;
  traceparent: string | undefined;
}

/** Node leaves headers past 2,000 out in silence; no honest client comes near this. */
const MOST_HEADERS = 200;
/** Each range can be an answer of its own (RFC 9110, 14.2): more than a few are ignored, as that section advises. */
const MOST_RANGES = 8;
const UPLOADS = /^(?:application\/(?:x-ndjson|octet-stream)|multipart\/form-data)\b/i;
const HOST = /^(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{1,253})(?::\d{1,5})?$/;
const TRACEPARENT = /^(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}(?:-.*)?$/;
/** These cannot be made hop-by-hop: without them the request would be another one. */
const NEVER_NAMED = new Set(['host', 'content-length', 'transfer-encoding', 'content-type', 'idempotency-key']);

const notAllowed: Refusal = { status: 405, code: 'METHOD_NOT_ALLOWED', detail: 'This method is not passed on' };

/**
 * What Node's parser lets through and a proxy must not (it passes duplicate Host, absolute-form targets, `gzip, chunked`,
 * duplicate Authorization and thousands of headers), refused; the rest as it goes on. Hop-by-hop headers go first, so that
 * a Connection header can only ever take away what the client itself has sent, never what is added here.
 */
export function admit(request: IncomingMessage): Admitted | Refusal {
  const { rawHeaders, method = '' } = request;
  if (method === 'TRACE' || method === 'CONNECT') return { ...notAllowed, close: true };
  const target = normalise(request.url ?? '');
  if ('status' in target) return target;
  if (rawHeaders.length > 2 * MOST_HEADERS) return malformed(`At most ${MOST_HEADERS} headers`);

  const admitted: Admitted = {
    method,
    path: target.path,
    target: target.path + target.query,
    reads: method === 'GET' || method === 'HEAD',
    headers: [],
    host: undefined,
    body: 'none',
    length: 0,
    upload: false,
    expects: false,
    authorization: undefined,
    cookie: undefined,
    session: undefined,
    keyed: false,
    consistency: undefined,
    traceparent: undefined,
  };
  const dropped = namedByConnection(rawHeaders);
  if (dropped && 'status' in dropped) return dropped;
  const refusal = readHeaders(admitted, rawHeaders, dropped);
  if (refusal) return refusal;
  if (admitted.host === undefined && request.httpVersion !== '1.0') return malformed('The Host header is missing');
  if (admitted.body === 'chunked' && request.httpVersion === '1.0')
    return malformed('HTTP/1.0 has no transfer encoding');
  return admitted;
}

function namedByConnection(rawHeaders: readonly string[]): Set<string> | Refusal | undefined {
  let named: Set<string> | undefined;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const value = rawHeaders[at + 1]!;
    if (headerName(rawHeaders[at]!).rule !== 'connection' || value === 'keep-alive' || value === 'close') continue;
    named ??= new Set();
    for (const option of connectionOptions(value)) {
      if (NEVER_NAMED.has(option)) return malformed(`Connection must not name ${option}`);
      named.add(option);
    }
  }
  return named;
}

function readHeaders(
  admitted: Admitted,
  rawHeaders: readonly string[],
  dropped: ReadonlySet<string> | undefined,
): Refusal | undefined {
  const { headers } = admitted;
  let singles: string[] | undefined;
  const twice = (name: string): Refusal => malformed(`The header ${name} is given twice`);
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const { name, rule } = headerName(rawHeaders[at]!);
    const value = rawHeaders[at + 1]!;
    if (dropped?.has(name)) continue;
    switch (rule) {
      case 'drop':
      case 'connection':
        continue;
      case 'expect':
        admitted.expects = /^100-continue$/i.test(value);
        continue;
      case 'host':
        if (admitted.host !== undefined) return twice(name);
        if (!HOST.test(value)) return malformed('The Host header is not a host');
        admitted.host = value;
        continue;
      case 'content-length':
        if (admitted.body !== 'none' || admitted.length > 0) return malformed('The length of the body is given twice');
        if (!/^\d{1,15}$/.test(value)) return malformed('The Content-Length is not a number');
        admitted.length = Number(value);
        if (admitted.length > 0) admitted.body = 'sized';
        continue;
      case 'transfer-encoding':
        if (admitted.body !== 'none') return malformed('The length of the body is given twice');
        if (value.toLowerCase() !== 'chunked') return malformed('The only transfer encoding is chunked');
        admitted.body = 'chunked';
        continue;
      case 'content-type':
        if (singles?.includes(name)) return twice(name);
        admitted.upload = UPLOADS.test(value);
        break;
      case 'authorization':
        if (admitted.authorization !== undefined) return twice(name);
        admitted.authorization = value;
        break;
      case 'session':
        if (admitted.session !== undefined) return twice(name);
        admitted.session = value;
        break;
      case 'cookie':
        admitted.cookie = admitted.cookie === undefined ? value : `${admitted.cookie}; ${value}`;
        break;
      case 'consistency':
        admitted.consistency = admitted.consistency === undefined ? value : `${admitted.consistency},${value}`;
        continue;
      case 'traceparent':
        if (admitted.traceparent === undefined && TRACEPARENT.test(value)) admitted.traceparent = value;
        continue;
      case 'range':
        if (value.split(',', MOST_RANGES + 1).length > MOST_RANGES) continue;
        break;
      case 'method':
        // A read that the app would take for a write would be mirrored, repeated, and sent to the wrong side.
        if (admitted.reads) continue;
        break;
      case 'key':
        admitted.keyed = true;
        if (singles?.includes(name)) return twice(name);
        break;
      case 'single':
        if (singles?.includes(name)) return twice(name);
        break;
      case 'pass':
        headers.push(name, value);
        continue;
    }
    (singles ??= []).push(name);
    headers.push(name, value);
  }
  return undefined;
}
