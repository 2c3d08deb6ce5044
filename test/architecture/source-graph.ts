import { readFileSync, readdirSync } from 'node:fs';
import { join, posix } from 'node:path';
import ts from 'typescript';

export const root = join(import.meta.dirname, '../..');

/** One `import`, `export … from` or `import()` in a file. */
export interface Import {
  from: string;
  specifier: string;
  /** Not when the file is loaded: types only, or `import()`. */
  late: boolean;
  /** The file of ours that it leads to; undefined for npm packages, and for a way in that is no door. */
  to: string | undefined;
}

interface Parsed {
  source: ts.SourceFile;
  specifiers: Pick<Import, 'specifier' | 'late'>[];
}

/** A door of a library: one entry of `exports` in its package.json, and the file behind it. */
type Doors = Map<string, string>;

/**
 * Every TypeScript file of libs/ and apps/ and what it imports. Paths are relative to the root, with `/`.
 * Parsed with TypeScript's own parser (no type checker: 300 files take about a second).
 */
export class SourceGraph {
  private known: Import[] | undefined;

  private constructor(
    private readonly texts: ReadonlyMap<string, string>,
    private readonly doors: Doors,
    private readonly parsed = new Map<string, Parsed>(),
  ) {}

  static read(): SourceGraph {
    const texts = new Map<string, string>();
    const doors: Doors = new Map();
    for (const top of ['libs', 'apps', 'proxy'])
      for (const path of walk(top)) {
        if (path.endsWith('/package.json')) addDoors(doors, path);
        else if (/\.tsx?$/.test(path)) texts.set(path, readFileSync(join(root, path), 'utf8'));
      }
    return new SourceGraph(texts, doors);
  }

  /** No sources at all, to be shown single files. */
  static empty(): SourceGraph {
    return new SourceGraph(new Map(), new Map());
  }

  /** The same sources with some more (or other) files: how a rule is shown what it must refuse. */
  plus(files: Record<string, string>): SourceGraph {
    const unchanged = [...this.parsed].filter(([path]) => !(path in files));
    return new SourceGraph(new Map([...this.texts, ...Object.entries(files)]), this.doors, new Map(unchanged));
  }

  get files(): string[] {
    return [...this.texts.keys()];
  }

  get imports(): Import[] {
    this.known ??= this.files.flatMap((from) =>
      this.parsedFile(from).specifiers.map((each) => ({ from, ...each, to: this.resolve(from, each.specifier) })),
    );
    return this.known;
  }

  parse(path: string): ts.SourceFile {
    return this.parsedFile(path).source;
  }

  private parsedFile(path: string): Parsed {
    let parsed = this.parsed.get(path);
    if (!parsed) {
      const source = ts.createSourceFile(path, this.texts.get(path) ?? '', ts.ScriptTarget.Latest, true);
      parsed = { source, specifiers: specifiers(source) };
      this.parsed.set(path, parsed);
    }
    return parsed;
  }

  private resolve(from: string, specifier: string): string | undefined {
    if (!specifier.startsWith('.')) return this.doors.get(specifier);
    const base = posix.join(posix.dirname(from), specifier).replace(/\.jsx?$/, '');
    return [`${base}.ts`, `${base}.tsx`, `${base}/index.ts`].find((path) => this.texts.has(path));
  }
}

/** `libs/contexts/orders/src/x.ts` is of `contexts/orders`, `libs/kernel/src/x.ts` of `kernel`, `apps/cli/…` of `apps/cli`. */
export function projectOf(path: string): string {
  const [top, first, second] = path.split('/');
  if (top === 'proxy') return top;
  if (top === 'apps') return `apps/${first}`;
  return first === 'contexts' ? `contexts/${second}` : (first ?? '');
}

/** A spec, or what specs share (`*.spec-support.ts`): neither is built. */
export const isSpec = (path: string): boolean => /\.spec(-support)?\.ts$/.test(path);

/** Calls `visit` for a node and everything below it. */
export function everyNode(node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node);
  ts.forEachChild(node, (child) => everyNode(child, visit));
}

function specifiers(source: ts.SourceFile): Parsed['specifiers'] {
  const found: Parsed['specifiers'] = [];
  everyNode(source, (node) => {
    const literal =
      ts.isImportDeclaration(node) || ts.isExportDeclaration(node)
        ? node.moduleSpecifier
        : ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword
          ? node.arguments[0]
          : ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)
            ? node.argument.literal
            : undefined;
    if (literal && ts.isStringLiteral(literal)) found.push({ specifier: literal.text, late: isLate(node) });
  });
  return found;
}

function isLate(node: ts.Node): boolean {
  if (ts.isExportDeclaration(node)) return node.isTypeOnly || onlyTypes(node.exportClause);
  if (!ts.isImportDeclaration(node)) return true;
  const clause = node.importClause;
  return clause !== undefined && (clause.isTypeOnly || (!clause.name && onlyTypes(clause.namedBindings)));
}

const onlyTypes = (names: ts.NamedImportBindings | ts.NamedExportBindings | undefined): boolean =>
  names !== undefined &&
  (ts.isNamedImports(names) || ts.isNamedExports(names)) &&
  names.elements.every(({ isTypeOnly }) => isTypeOnly);

function* walk(folder: string): Generator<string> {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = `${folder}/${entry.name}`;
    if (!entry.isDirectory()) yield path;
    else if (!['node_modules', 'dist', 'generated'].includes(entry.name)) yield* walk(path);
  }
}

function addDoors(doors: Doors, path: string): void {
  const manifest = JSON.parse(readFileSync(join(root, path), 'utf8')) as {
    name: string;
    exports?: Record<string, { 'banyan-source': string }>;
  };
  for (const [door, { 'banyan-source': source }] of Object.entries(manifest.exports ?? {}))
    doors.set(posix.join(manifest.name, door), posix.join(posix.dirname(path), source));
}
