import { type Actor, anonymous } from '@banyan/kernel';
import type { FastifyRequest } from 'fastify';

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the guard of `@banyan/platform/auth`, never from a header. */
    actor?: Actor;
  }
}

/** On whose behalf a request runs; anonymous until the guard has said otherwise. */
export const actorOf = (request: FastifyRequest): Actor => request.actor ?? anonymous;
