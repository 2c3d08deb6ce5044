import { type ExecutionContext, Inject, Injectable, type PipeTransform, createParamDecorator } from '@nestjs/common';
import { ApiBody, ApiHeader, ApiResponse } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { Config } from '../config/index.js';
import { fail } from '../http/errors.js';
import { onMethod } from '../http/headers.js';
import { SchemaPipe } from '../http/validation.js';
import { SIGNATURE_HEADER, verifyWebhook } from './webhook-signature.js';

type Delivery = FastifyRequest & { rawBody?: Buffer };

/**
 * Parameter: the body of a webhook, believed only when its `Banyan-Signature` holds over the bytes as they came, and
 * valid. `@SignedBody(ProviderEvent, ({ payments }) => payments.pspWebhookSecret) event: z.output<typeof ProviderEvent>`.
 * No or a wrong signature, and no secret to check it with: SIGNATURE_INVALID (401). Invalid: INPUT_INVALID (400).
 */
export function SignedBody(schema: z.ZodType, secretOf: (config: Config) => string | undefined): ParameterDecorator {
  @Injectable()
  class SignedBodyPipe implements PipeTransform {
    private readonly validation = new SchemaPipe();
    constructor(@Inject(Config) private readonly config: Config) {}

    transform({ headers, rawBody, body }: Delivery): Promise<unknown> {
      const secret = secretOf(this.config);
      if (!secret) throw fail('SIGNATURE_INVALID', 'No secret is set for this webhook, so no signature can hold');
      const signature = headers[SIGNATURE_HEADER.toLowerCase()];
      verifyWebhook(secret, typeof signature === 'string' ? signature : undefined, rawBody);
      return this.validation.transform(body, { type: 'body', schema });
    }
  }
  return createParamDecorator(
    (_: undefined, context: ExecutionContext) => context.switchToHttp().getRequest<Delivery>(),
    [
      onMethod(
        ApiHeader({
          name: SIGNATURE_HEADER,
          required: true,
          description: 't=<unix seconds>,v1=<hex HMAC-SHA-256 of "t.body">',
        }),
        ApiBody({ schema: z.toJSONSchema(schema, { target: 'draft-2020-12', io: 'input' }) as object }),
        ApiResponse({ status: 401, description: 'The signature does not hold' }),
      ),
    ],
  )(SignedBodyPipe);
}
