import {
  type CustomDecorator,
  type ExecutionContext,
  SetMetadata,
  applyDecorators,
  createParamDecorator,
} from '@nestjs/common';
import { ApiExtension } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import type { Role } from '@banyan/kernel';
import { PUBLIC_EXTENSION } from '../http/openapi.js';
import { actorOf } from '../http/actor.js';

export const PUBLIC = 'banyan:public';
export const ROLES = 'banyan:roles';

/** Answers without a token. Every use stands in a list that a test compares with the running app. */
export const Public = (): MethodDecorator & ClassDecorator =>
  applyDecorators(SetMetadata(PUBLIC, true), ApiExtension(PUBLIC_EXTENSION, true));

/** Answers only who holds one of `roles`; an admin may do what staff may. Without it any signed-in user is answered. */
export const Roles = (...roles: Role[]): CustomDecorator => SetMetadata(ROLES, roles);

/** Parameter: on whose behalf the request runs. `@CurrentActor() actor: Actor` */
export const CurrentActor = createParamDecorator((_: undefined, context: ExecutionContext) =>
  actorOf(context.switchToHttp().getRequest<FastifyRequest>()),
);
