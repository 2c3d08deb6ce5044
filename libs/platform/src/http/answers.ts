import { HttpCode, SetMetadata, applyDecorators } from '@nestjs/common';
import { ApiResponse } from '@nestjs/swagger';
import type { z } from 'zod';

export const ETAG = 'banyan:etag';

interface AnswerOptions {
  description?: string;
  /** The answer has a `version`: send it as the ETag and answer 304 to an If-None-Match that names it. */
  etag?: boolean;
}

/** What a handler answers: the status it sends and, for the OpenAPI document, the schema of its body. */
export function Answers(status: number, schema?: z.ZodType, options: AnswerOptions = {}): MethodDecorator {
  const headers = options.etag
    ? { ETag: { description: 'The version, for If-Match and If-None-Match', schema: { type: 'string' as const } } }
    : undefined;
  const decorators: MethodDecorator[] = [
    HttpCode(status),
    ApiResponse({
      status,
      description: options.description ?? '',
      ...(schema && { standardSchema: schema }),
      ...(headers && { headers }),
    }),
  ];
  if (options.etag) decorators.push(SetMetadata(ETAG, true), ApiResponse({ status: 304, description: 'Not modified' }));
  return applyDecorators(...decorators);
}
