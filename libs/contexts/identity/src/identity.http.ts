import { Body, Controller, Get, Header, Ip, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Email, PersonName, PublicJwk, User, identity } from '@banyan/contracts';
import type { Actor } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';
import { CurrentActor, Public } from '@banyan/platform/auth';
import { Answers, fail } from '@banyan/platform/http';
import { z } from 'zod';
import { Authentication } from './identity.authentication.js';

const password = (minimum: number) =>
  z.string().min(minimum, `at least ${minimum} characters`).max(128, 'at most 128 characters');

const Registration = z.strictObject({ email: Email, password: password(8), name: PersonName });
/** A wrong password may be as short as it likes: that is 401 and not 400. */
const Login = z.strictObject({ email: Email, password: password(1) });
const RefreshToken = z.strictObject({ refreshToken: z.string().min(1).max(512) });

const Tokens = z
  .strictObject({
    accessToken: z.string().describe('JWT for `Authorization: Bearer …`'),
    refreshToken: z.string().describe('Good for one refresh; used twice, it ends the session'),
    tokenType: z.literal('Bearer'),
    expiresIn: z.int().describe('Seconds until the access token expires'),
  })
  .meta({ id: 'Tokens' });

@ApiTags('identity')
@Controller('v1/auth')
export class AuthController {
  constructor(private readonly authentication: Authentication) {}

  @Post('register')
  @Public()
  @Answers(201, User)
  register(@Body({ schema: Registration }) body: z.output<typeof Registration>, @Ip() address: string) {
    return this.authentication.register(body, address);
  }

  @Post('login')
  @Public()
  @Header('cache-control', 'no-store')
  @Answers(200, Tokens)
  login(@Body({ schema: Login }) { email, password }: z.output<typeof Login>, @Ip() address: string) {
    return this.authentication.login(email, password, address);
  }

  @Post('refresh')
  @Public()
  @Header('cache-control', 'no-store')
  @Answers(200, Tokens)
  refresh(@Body({ schema: RefreshToken }) { refreshToken }: z.output<typeof RefreshToken>) {
    return this.authentication.refresh(refreshToken);
  }

  @Post('logout')
  @Public()
  @Answers(204)
  logout(@Body({ schema: RefreshToken }) { refreshToken }: z.output<typeof RefreshToken>) {
    return this.authentication.logout(refreshToken);
  }
}

@ApiTags('identity')
@Controller()
export class IdentityController {
  constructor(@InjectClient(identity) private readonly client: Client<typeof identity>) {}

  @Get('v1/me')
  @Answers(200, User)
  me(@CurrentActor() actor: Actor) {
    if (actor.kind !== 'user') throw fail('UNAUTHENTICATED', 'Send Authorization: Bearer <access token>');
    return this.client.user({ id: actor.id });
  }

  /** Half of the time that a key is published before it signs. */
  @Get('.well-known/jwks.json')
  @Public()
  @Header('cache-control', 'public, max-age=300')
  @Answers(200, z.strictObject({ keys: z.array(PublicJwk) }))
  keys() {
    return this.client.jwks({});
  }
}
