import type { IncomingHttpHeaders } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { Logger } from '@nestjs/common';
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

/**
 * Whoever asks a control plane that stands by is answered by the one that acts, which checks the token: so every one of
 * `urls` takes orders. Where none acts, or the others are not known, the answer is that of whoever stands by.
 */
export function forwardWhileStandingBy(server: FastifyInstance, control: ControlPlane, urls: readonly string[]): void {
  if (urls.length < 2) return;
  const log = new Logger('ControlPlane');
  // The one that answered last comes first: its own address is among them, too.
  let known = [...urls];
  const agent = new Agent({ headersTimeout: ANSWER_MS, bodyTimeout: 0, keepAliveTimeout: 2_000 });
  server.addHook('onClose', () => agent.destroy());
  server.addHook('onRequest', async (asked, reply) => {
    if (control.leading || !asked.url.startsWith('/control/') || asked.headers[FORWARDED] !== undefined) return;
    if (Number(asked.headers['content-length'] ?? 0) > LARGEST) return;
    const answered = await forward(agent, known, asked, reply).catch((err: unknown) => {
      log.warn({ msg: 'not passed on', err });
      return undefined;
    });
    if (answered) known = [answered, ...urls.filter((url) => url !== answered)];
    if (answered || asked.method === 'GET') return;
    // Its body has been read: it cannot go on to its handler.
    const { problem, headers } = problemOf(toDomainError(control.standby), String(asked.id));
    return reply
      .code(problem.status)
      .headers(headers)
      .send(Buffer.from(JSON.stringify(problem)));
  });
}

/** Answers who took it; undefined: nobody. */
async function forward(
  dispatcher: Agent,
  urls: readonly string[],
  { method, url, headers, raw }: FastifyRequest,
  reply: FastifyReply,
): Promise<string | undefined> {
  const body = method === 'GET' ? undefined : await bounded(raw);
  for (const base of urls) {
    const answer = await request(base + url, {
      ...{ method: method as 'GET', body, dispatcher },
      headers: { ...passing(headers), [FORWARDED]: '1' },
    }).catch(() => undefined);
    if (!answer || answer.statusCode === 503) {
      await answer?.body.dump();
      continue;
    }
    reply.hijack();
    raw.once('close', () => answer.body.destroy());
    reply.raw.writeHead(answer.statusCode, passing(answer.headers));
    pipeline(answer.body, reply.raw).catch(() => reply.raw.destroy()); // either end may go away
    return base;
  }
  return undefined;
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
