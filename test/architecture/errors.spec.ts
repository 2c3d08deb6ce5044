import { isSpec } from './source-graph.js';
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { contracts } from '@banyan/contracts';
import { describe as describeError, errorRegistry, statusOfKind } from '@banyan/platform/http';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');
const page = join(root, 'docs/errors.md');

type Row = readonly [code: string, status: number, title: string];
const table = (rows: readonly Row[]) =>
  ['| code | status | meaning |', '| --- | --- | --- |']
    .concat(
      [...rows]
        .sort(([a], [b]) => a.localeCompare(b))
        .map(([code, status, title]) => `| \`${code}\` | ${status} | ${title} |`),
    )
    .join('\n');

function errorsPage(): string {
  const platform = Object.entries(errorRegistry).map(([code, { kind }]): Row => {
    const { status, title } = describeError(code, kind);
    return [code, status, title];
  });
  const ofContexts = contracts.map((contract) => {
    const rows = Object.entries(contract.errors).map(([code, kind]): Row => {
      const { status, title } = describeError(code, kind);
      const operations = Object.entries(contract.operations)
        .filter(([, operation]) => code in ((operation as { errors?: object }).errors ?? {}))
        .map(([name]) => `\`${name}\``);
      return [code, status, `${title} (${operations.join(', ')})`];
    });
    return rows.length > 0 ? `## ${contract.name}\n\n${table(rows)}\n` : '';
  });
  return [
    '# Errors\n',
    'Every failure is answered as `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, `code`,',
    '`traceId`, for invalid input `errors` (`pointer`, `detail`), and `data` with facts that belong to the code. Programs',
    'branch on `code`; `detail` is for people. 429 and 503 carry `Retry-After`.\n',
    'This page is generated from the registry and the contracts: `UPDATE=1 npx vitest run test/architecture/errors.spec.ts`.\n',
    '## Kinds\n',
    '| kind | status |\n| --- | --- |',
    ...Object.entries(statusOfKind).map(([kind, status]) => `| ${kind} | ${status} |`),
    '\n## Platform\n',
    `${table(platform)}\n`,
    ...ofContexts.filter(Boolean),
  ].join('\n');
}

/** Codes that the source gives to errors by name, outside of contracts. */
function codesThrown(): string[] {
  const files = globSync('{libs/{kernel,messaging,platform},apps}/**/src/**/*.ts', {
    cwd: root,
    exclude: (name) => name === 'node_modules',
  });
  const codes = files
    .filter((file) => !isSpec(file))
    .flatMap((file) => [
      ...readFileSync(join(root, file), 'utf8').matchAll(/(?:new DomainError|super)\(\s*'([A-Z][A-Z_]+)'/g),
    ]);
  const named = files.flatMap((file) => [
    ...readFileSync(join(root, file), 'utf8').matchAll(/export const [A-Z_]+ = '([A-Z]+_[A-Z_]+)'/g),
  ]);
  return [...new Set([...codes, ...named].map(([, code]) => code as string))].sort();
}

describe('errors', () => {
  it('are all documented, and the page is current', () => {
    const expected = errorsPage();
    if (process.env['UPDATE']) writeFileSync(page, expected);
    expect(existsSync(page) ? readFileSync(page, 'utf8') : '').toBe(expected);
  });

  it('a code means one thing: no context uses a code of the platform, or of another context, for another kind', () => {
    const kinds = new Map<string, string>(Object.entries(errorRegistry).map(([code, { kind }]) => [code, kind]));
    for (const { errors } of contracts)
      for (const [code, kind] of Object.entries(errors)) {
        expect(kinds.get(code) ?? kind, code).toBe(kind);
        kinds.set(code, kind);
      }
  });

  it('every code the libraries throw stands in the registry', () => {
    const codes = codesThrown();
    expect(codes).toContain('DATABASE_UNAVAILABLE');
    expect(codes.filter((code) => !Object.hasOwn(errorRegistry, code))).toEqual([]);
  });
});
