import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { Rules } from '@banyan/extraction/parity';
import { Stage } from '@banyan/extraction';
import { httpOrigin, httpUrl, network } from '@banyan/platform/config';
import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { normalise } from './paths.js';

const Address = (port: number) =>
  z.strictObject({ host: z.string().min(1).default('127.0.0.1'), port: z.int().min(0).max(65_535).default(port) });

/** Several instances of one side: any of them will do. */
const OneOrMore = <T>(each: z.ZodType<T>) =>
  z.unknown().transform((given, context): T[] => {
    // No union: it would not say what is wrong with the one that was meant.
    const all = z
      .array(each)
      .min(1, 'at least one address')
      .safeParse(Array.isArray(given) ? given : [given]);
    if (all.data) return all.data;
    for (const issue of all.error.issues)
      context.addIssue({ ...issue, path: Array.isArray(given) ? issue.path : issue.path.slice(1) });
    return z.NEVER;
  });

const Path = z.string().refine((path) => {
  const target = normalise(path);
  return !('status' in target) && target.path === path && target.query === '';
}, 'must be a plain path such as /v1/stock');

const KeyedWrite = z
  .string()
  .regex(/^(?:POST|PUT|PATCH|DELETE) \/[^\s?#]*$/, 'must be a method and a path such as PUT /v1/cart/items/{sku}');

const ms = z.int().min(0).max(86_400_000);
const Limits = z.strictObject({
  headersMs: ms.optional(),
  requestMs: ms.optional(),
  uploadMs: ms.optional(),
  candidateMs: ms.optional(),
  holdMs: ms.optional(),
  drainMs: ms.optional(),
  bodyBytes: z.int().min(1).optional(),
  connections: z.int().min(1).optional(),
  requestsPerSocket: z.int().min(0).optional(),
});

const Route = z.strictObject({
  path: Path,
  context: z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, 'must be a word such as inventory'),
  monolith: OneOrMore(httpOrigin),
  service: OneOrMore(httpOrigin).optional(),
  stage: Stage.default('monolith'),
  percent: z.number().min(0).max(100).default(0),
  keyed: z.array(KeyedWrite).optional(),
  parity: Rules.optional(),
});

const File = z
  .strictObject({
    listen: Address(8080).prefault({}),
    admin: Address(8081).prefault({}),
    control: OneOrMore(httpUrl).optional(),
    servedBy: z.boolean().default(true),
    trustedProxies: z.array(network).default([]),
    limits: Limits.prefault({}),
    routes: z.array(Route).min(1, 'at least one route'),
  })
  .superRefine(({ routes, control }, issues) => {
    const bad = (at: number, field: string, message: string): void =>
      issues.addIssue({ code: 'custom', path: ['routes', at, field], message });
    routes.forEach((route, at) => {
      const first = routes.findIndex(({ context }) => context === route.context);
      for (const field of ['monolith', 'service', 'stage', 'percent'] as const)
        if (!isDeepStrictEqual(routes[first]![field], route[field]))
          bad(at, field, `must be the same on every route of ${route.context}: see routes[${first}]`);
      const path = (text: string) => text.toLowerCase().replace(/\/+$/, '');
      if (routes.findIndex((other) => path(other.path) === path(route.path)) < at)
        bad(at, 'path', `${route.path} has a route already`);
      if (!route.service && !control && route.stage !== 'monolith' && route.stage !== 'replicate')
        bad(at, 'stage', `${route.stage} needs the address of the service`);
    });
  });

export type ProxyFile = z.output<typeof File>;

/** A file that is not used, with every problem in it: `proxy.yaml:7:12: routes[0].stage: …`. */
export class BadFile extends Error {
  override readonly name = 'BadFile';
  constructor(readonly problems: readonly string[]) {
    super(problems.join('\n'));
  }
}

/** The configuration in `text`; `name` is for messages. Throws BadFile. */
export function parseFile(text: string, name: string): ProxyFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const at = (offset: number | undefined): string => {
    if (offset === undefined) return name;
    const { line, col } = lines.linePos(offset);
    return `${name}:${line}:${col}`;
  };
  const broken = [...document.errors, ...document.warnings];
  if (broken.length > 0)
    throw new BadFile(broken.map(({ pos, message }) => `${at(pos[0])}: ${message.split('\n', 1)[0]}`));
  // Aliases are followed a hundred times at most: a few lines of them would otherwise make gigabytes.
  const { data, error } = File.safeParse(document.toJS({ maxAliasCount: 100 }));
  if (data) return data;
  throw new BadFile(
    error.issues.map(({ path, message, ...issue }) => {
      // A field that should not be there is named by its parent.
      const full = issue.code === 'unrecognized_keys' ? [...path, issue.keys[0]!] : path;
      return `${at(positionOf(document, full))}: ${fieldName(full)}${full.length > 0 ? ': ' : ''}${message}`;
    }),
  );
}

/** Where the field stands, or the nearest thing around it that is there. */
function positionOf(document: ReturnType<typeof parseDocument>, path: readonly PropertyKey[]): number | undefined {
  for (let depth = path.length; depth >= 0; depth--) {
    const node = depth === 0 ? document.contents : document.getIn(path.slice(0, depth), true);
    const range = (node as { range?: [number, number, number] } | null | undefined)?.range;
    if (range) return range[0];
  }
  return undefined;
}

const fieldName = (path: readonly PropertyKey[]): string =>
  path.reduce<string>(
    (text, part) => (typeof part === 'number' ? `${text}[${part}]` : text ? `${text}.${String(part)}` : String(part)),
    '',
  );

export function readFile(path: string): ProxyFile {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new BadFile([`${path}: cannot be read (${(error as NodeJS.ErrnoException).code})`]);
  }
  return parseFile(text, path);
}

const LOOK_EVERY_MS = 200;

/**
 * Reads the file again whenever it changes. Looks at it five times a second: notifications of the file system are lost
 * with some editors, with mounted volumes, and where a folder of links is swapped, as Kubernetes does.
 */
export function watchConfig(
  path: string,
  changed: (file: ProxyFile) => void,
  refused: (error: BadFile) => void,
): () => void {
  const look = (): void => {
    try {
      changed(readFile(path));
    } catch (error) {
      refused(error instanceof BadFile ? error : new BadFile([`${path}: ${(error as Error).message}`]));
    }
  };
  watchFile(path, { interval: LOOK_EVERY_MS }, look);
  return () => unwatchFile(path, look);
}
