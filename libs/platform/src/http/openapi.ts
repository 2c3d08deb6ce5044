import { type INestApplication } from '@nestjs/common';
import { DocumentBuilder, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { z } from 'zod';

/** Marks a handler that answers without a token; the document turns it into `security: []`. */
export const PUBLIC_EXTENSION = 'x-public';

const problemSchema = {
  type: 'object',
  description: 'RFC 9457 problem details',
  required: ['type', 'title', 'status', 'detail', 'code', 'traceId'],
  properties: {
    type: { type: 'string', format: 'uri', examples: ['urn:banyan:problem:input-invalid'] },
    title: { type: 'string' },
    status: { type: 'integer' },
    detail: { type: 'string' },
    code: {
      type: 'string',
      description: 'What programs branch on; listed in docs/errors.md',
      examples: ['INPUT_INVALID'],
    },
    traceId: { type: 'string', description: 'Finds this request in logs and traces' },
    errors: {
      type: 'array',
      description: 'For invalid input: where (RFC 6901 JSON pointer) and what',
      items: {
        type: 'object',
        required: ['pointer', 'detail'],
        properties: { pointer: { type: 'string' }, detail: { type: 'string' } },
      },
    },
    data: { type: 'object', description: 'Facts that belong to the code' },
  },
};

const problemContent = { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } };
const retryAfter = { 'Retry-After': { description: 'Seconds', schema: { type: 'integer' as const } } };

/** What any operation may answer besides what it declares. */
const usualProblems: Record<string, { description: string; headers?: typeof retryAfter }> = {
  400: { description: 'Malformed or invalid input' },
  429: { description: 'Too many requests', headers: retryAfter },
  503: { description: 'Not available right now', headers: retryAfter },
  default: { description: 'Any other failure' },
};
const guardedProblems: typeof usualProblems = {
  401: { description: 'No valid access token' },
  403: { description: 'The role does not allow this' },
};

/**
 * A zod schema as the JSON Schema (2020-12) that OpenAPI 3.1 speaks. Schemas with an id become components; one that is
 * read and written may differ between the two (defaults), so what is read is named `<id>Input`.
 */
function convert(schema: unknown, { schemaType }: { schemaType: 'input' | 'output' }) {
  if (!(schema instanceof z.ZodType)) return undefined;
  const json = z.toJSONSchema(schema, { target: 'draft-2020-12', io: schemaType, unrepresentable: 'any' });
  const suffix = schemaType === 'input' ? 'Input' : '';
  const renamed = JSON.parse(
    JSON.stringify(json, (key, value: unknown) =>
      key === '$ref' && typeof value === 'string' ? value.replace('#/$defs/', '#/components/schemas/') + suffix : value,
    ),
  ) as Record<string, unknown>;
  const { $defs = {}, $schema: _, ...rest } = renamed;
  const components = Object.fromEntries(
    Object.entries($defs as Record<string, Record<string, unknown>>).map(([name, { id: _id, ...def }]) => [
      name + suffix,
      def,
    ]),
  );
  // Query strings and paths are taken apart into parameters, which needs the object itself, not a reference to it.
  const reference = typeof rest['$ref'] === 'string' ? rest['$ref'].replace('#/components/schemas/', '') : undefined;
  const root = reference !== undefined && schemaType === 'input' ? components[reference] : undefined;
  return { schema: root ?? rest, components };
}

interface Operation {
  responses?: Record<string, unknown>;
  security?: unknown[];
  [extension: string]: unknown;
}

/** The app's OpenAPI 3.1 document, with problems and security on every operation. */
export function openApiDocument(app: INestApplication, title: string, version: string): OpenAPIObject {
  const config = new DocumentBuilder()
    .setOpenAPIVersion('3.1.0')
    .setTitle(title)
    .setVersion(version)
    .addBearerAuth({ type: 'http', scheme: 'bearer', bearerFormat: 'JWT' })
    .addSecurityRequirements('bearer')
    .build();
  const document = SwaggerModule.createDocument(app, config, {
    standardSchemaConverter: convert,
    operationIdFactory: (controller, method) => `${controller.replace(/Controller$/, '').toLowerCase()}_${method}`,
  });
  document.components ??= {};
  document.components.schemas = { ...document.components.schemas, Problem: problemSchema as never };
  for (const path of Object.values(document.paths))
    for (const operation of Object.values(path as Record<string, Operation>)) {
      if (typeof operation !== 'object' || !operation.responses) continue;
      const open = operation[PUBLIC_EXTENSION] === true;
      delete operation[PUBLIC_EXTENSION];
      if (open) operation.security = [];
      const problems = { ...usualProblems, ...(open ? {} : guardedProblems) };
      for (const [status, problem] of Object.entries(problems)) operation.responses[status] ??= problem;
      for (const [status, response] of Object.entries(operation.responses))
        if (status === 'default' || Number(status) >= 400)
          operation.responses[status] = { ...(response as object), content: problemContent };
    }
  return document;
}
