import type { IncomingHttpHeaders } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { Logger } from '@nestjs/common';
import { ControlPlanes } from '@banyan/extraction/control-planes';
import { problemOf, toDomainError } from '@banyan/platform/http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Agent, request } from 'undici';
import type { ControlPlane } from './control-plane.service.js';

/** Says that another control plane has passed it on: nobody does so twice. */
const FORWARDED = 'banyan-forwarded';
/** Orders are a few hundred bytes, reports some kilobytes. */
const LARGEST = 1 << 20;
/** For the head of an answer; a stream is silent for 5 s at most. */
const ANSWER_MS = 10_000;
/** About one hop, so not about the next (RFC 9110, 7.6.1). */
const OWN = new Set(['connection', 'keep-alive', 'transfer-encoding', 'upgrade', 'te', 'trailer', 'host', 'expect']);

/** One address is its own, or stands for all of them, itself included: only with more does it know another one. */
export const canForward = (urls: readonly string[]): boolean => urls.length > 1;

/**
 * Whoever asks a control plane that stands by is answered by the one that acts, which checks the token: so every one of
 * `urls` takes orders. Where none acts, or the others are not known, the answer is that of whoever stands by.
 */
export function forwardWhileStandingBy(server: FastifyInstance, control: ControlPlane, urls: readonly string[]): void {
  if (!canForward(urls)) return;
  const log = new Logger('ControlPlane');
  // Its own address is among them, too.
  const planes = new ControlPlanes(urls);
  const agent = new Agent({ headersTimeout: ANSWER_MS, bodyTimeout: 0, keepAliveTimeout: 2_000 });
  server.addHook('onClose', () => agent.destroy());
  server.addHook('onRequest', async (asked, reply) => {
    if (control.leading || !asked.url.startsWith('/control/') || asked.headers[FORWARDED] !== undefined) return;
    if (Number(asked.headers['content-length'] ?? 0) > LARGEST) return;
    const answered = await forward(agent, planes, asked, reply).catch((err: unknown) => {
      log.warn({ msg: 'not passed on', err });
      return false;
    });
    if (answered || asked.method === 'GET') return;
    // Its body has been read: it cannot go on to its handler.
    const { problem, headers } = problemOf(toDomainError(control.standby), String(asked.id));
    return reply
      .code(problem.status)
      .headers(headers)
      .send(Buffer.from(JSON.stringify(problem)));
  });
}

/** Has anybody taken it? */
async function forward(
  dispatcher: Agent,
  planes: ControlPlanes,
  { method, url, headers, raw }: FastifyRequest,
  reply: FastifyReply,
): Promise<boolean> {
  const body = method === 'GET' ? undefined : await bounded(raw);
  const answer = await planes.ask(async (base) => {
    const said = await request(base + url, {
      ...{ method: method as 'GET', body, dispatcher },
      headers: { ...passing(headers), [FORWARDED]: '1' },
    }).catch(() => undefined);
    if (said?.statusCode !== 503) return said;
    await said.body.dump();
    return undefined;
  });
  if (!answer) return false;
  reply.hijack();
  raw.once('close', () => answer.body.destroy());
  reply.raw.writeHead(answer.statusCode, passing(answer.headers));
  pipeline(answer.body, reply.raw).catch(() => reply.raw.destroy()); // either end may go away
  return true;
}

const passing = (headers: IncomingHttpHeaders): IncomingHttpHeaders =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !OWN.has(name)));

async function bounded(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > LARGEST) throw new Error('the body is too long to be passed on');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
