import { randomBytes } from 'node:crypto';
import { STATUS_CODES, type ServerResponse } from 'node:http';

/** Why the proxy itself answers a request, in the words of the platform's error registry. */
export interface Refusal {
  status: number;
  code: string;
  detail: string;
  /** Seconds; for 503. */
  retryAfter?: number;
  /** The connection cannot be trusted any more, or has a body on it that nobody will read. */
  close?: boolean;
}

/** What we have a fault in. */
export const unforeseen: Refusal = { status: 500, code: 'INTERNAL', detail: 'The failure is logged', close: true };

export const malformed = (detail: string): Refusal => ({ status: 400, code: 'MALFORMED_REQUEST', detail, close: true });

export const unavailable = (detail: string, retryAfter = 1): Refusal => ({
  status: 503,
  code: 'UNAVAILABLE',
  detail,
  retryAfter,
});

/** RFC 9457, as the apps behind the proxy write it. `traceId` leads to the line in the log. */
export function problemText({ status, code, detail }: Refusal, traceId: string): string {
  const type = `urn:banyan:problem:${code.toLowerCase().replaceAll('_', '-')}`;
  return JSON.stringify({ type, title: STATUS_CODES[status] ?? 'Refused', status, detail, code, traceId });
}

/** Answers with the refusal; nothing of an answer may have been sent before. */
export function refuse(response: ServerResponse, refusal: Refusal, traceId: string): void {
  const text = problemText(refusal, traceId);
  const headers = [
    ...['content-type', 'application/problem+json', 'cache-control', 'no-store'],
    ...['content-length', String(Buffer.byteLength(text))],
  ];
  if (refusal.retryAfter !== undefined) headers.push('retry-after', String(refusal.retryAfter));
  if (refusal.status === 405) headers.push('allow', 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS');
  if (refusal.close) headers.push('connection', 'close');
  response.writeHead(refusal.status, headers);
  response.end(text);
}

/** The same for what could not even be parsed: there is a socket, and no request. */
export function refusalBytes(refusal: Refusal): string {
  const text = problemText(refusal, randomBytes(16).toString('hex'));
  return (
    `HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status]}\r\ncontent-type: application/problem+json\r\n` +
    `cache-control: no-store\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`
  );
}
