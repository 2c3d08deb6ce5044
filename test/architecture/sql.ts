import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { type SourceGraph, everyNode, isSpec, projectOf, root } from './source-graph.js';

/** A piece of SQL and the context whose role will run it. */
export interface SqlText {
  context: string;
  where: string;
  text: string;
}

/** The hand-written migrations of the given contexts. */
export function migrationSql(contexts: readonly string[]): SqlText[] {
  return contexts.flatMap((context) => {
    const folder = join(root, 'migrations', context);
    if (!existsSync(folder)) return [];
    return readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.sql'))
      .map((path) => ({
        context,
        where: `migrations/${context}/${path}`,
        text: withoutComments(readFileSync(join(folder, path), 'utf8')),
      }));
  });
}

/**
 * Every string of a context's code that is SQL: what a tag such as `$queryRaw` or `sql` binds, what `.query(…)` is
 * given, and any other text that reads like a statement, so that a query put together elsewhere is seen as well.
 */
export function sourceSql(graph: SourceGraph): SqlText[] {
  const texts: SqlText[] = [];
  for (const file of graph.files) {
    const project = projectOf(file);
    if (!project.startsWith('contexts/') || isSpec(file)) continue;
    const source = graph.parse(file);
    everyNode(source, (node) => {
      if (!isText(node) || !(isBound(node) || readsLikeSql.test(node.getText()))) return;
      const { line } = source.getLineAndCharacterOfPosition(node.getStart());
      texts.push({ context: project.slice('contexts/'.length), where: `${file}:${line + 1}`, text: textOf(node) });
    });
  }
  return texts;
}

/** Uses of another context's schema, as lines. A context's own schema name is allowed, though never needed. */
export function foreignSchemas(texts: readonly SqlText[], contexts: readonly string[]): string[] {
  return texts.flatMap(({ context, where, text }) => {
    const others = contexts.filter((name) => name !== context);
    const qualified = new RegExp(`(?<![\\w."@'-])"?(${others.join('|')})"?\\s*\\.\\s*"?\\w+`, 'gi');
    const path = new RegExp(`search_path\\s*(?:=|to)\\s*[^;]*\\b(${others.join('|')})\\b`, 'gi');
    return [...text.matchAll(qualified), ...text.matchAll(path)].map(
      ([found]) => `${where}: ${context} reaches into ${found.trim()}`,
    );
  });
}

const readsLikeSql =
  /\b(select\b[^]*\bfrom|insert\s+into|update\s+[\w"$.{}]+\s+(as\s+\w+\s+)?set|delete\s+from|join\s+[\w".]+\s+(\w+\s+)?(on|using)|truncate\s|search_path)\b/i;
const tags = new Set(['$queryRaw', '$executeRaw', 'sql', 'raw']);
const calls = new Set(['query', 'execute', 'raw', '$queryRawUnsafe', '$executeRawUnsafe']);

type Text = ts.StringLiteral | ts.NoSubstitutionTemplateLiteral | ts.TemplateExpression;

const isText = (node: ts.Node): node is Text => ts.isStringLiteralLike(node) || ts.isTemplateExpression(node);

function isBound(node: Text): boolean {
  const { parent } = node;
  if (ts.isTaggedTemplateExpression(parent)) return tags.has(lastName(parent.tag));
  return ts.isCallExpression(parent) && parent.arguments[0] === node && calls.has(lastName(parent.expression));
}

const lastName = (node: ts.Expression): string =>
  ts.isPropertyAccessExpression(node) ? node.name.text : node.getText();

/** The text with each `${…}` as a `$`, so that what an expression names (`${orders.id}`) is not taken for a table. */
function textOf(node: Text): string {
  if (!ts.isTemplateExpression(node)) return withoutComments(node.text);
  return withoutComments(node.head.text + node.templateSpans.map((span) => `$${span.literal.text}`).join(''));
}

const withoutComments = (sql: string): string => sql.replace(/--.*$/gm, '').replace(/\/\*[^]*?\*\//g, '');
