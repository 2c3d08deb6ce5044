import { Body, Controller, Get, Headers, Post, Query, Res } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Answers } from '@banyan/platform/http';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { For } from '../access.js';
import { OwnFlags } from './own-flags.js';

const FeaturesQuery = z.object({ namePrefix: z.string().max(100).default('') });
const Registration = z.object({ appName: z.string().min(1) });
const Metrics = z.object({ appName: z.string().min(1), bucket: z.object({}) });

/** Unleash's client API: what unleash-client calls, in any language. */
@ApiTags('flags')
@For('client')
@Controller('api/client')
export class ClientApi {
  constructor(private readonly flags: OwnFlags) {}

  @Get('features')
  @Answers(200)
  features(
    @Query({ schema: FeaturesQuery }) { namePrefix }: z.output<typeof FeaturesQuery>,
    @Headers('if-none-match') known: string | undefined,
    @Res({ passthrough: true }) reply: FastifyReply,
  ) {
    const { etag, features } = this.flags.forClients(namePrefix);
    void reply.header('etag', etag);
    if (known === etag) {
      void reply.code(304);
      return;
    }
    return { version: 2, features, segments: [], query: namePrefix ? { namePrefix } : {} };
  }

  /** Taken and forgotten: who follows the flags is seen in the routing stream. */
  @Post('register')
  @Answers(202)
  register(@Body({ schema: Registration }) _: z.output<typeof Registration>): void {}

  @Post('metrics')
  @Answers(202)
  metrics(@Body({ schema: Metrics }) _: z.output<typeof Metrics>): void {}
}
