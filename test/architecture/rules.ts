import ts from 'typescript';
import { type SourceGraph, isSpec, projectOf } from './source-graph.js';

/** Who may import whom. What a row does not name, its projects must not import. */
export type ImportTable = Record<string, string[]>;

const matches = (pattern: string, project: string) =>
  pattern.endsWith('/*') ? project.startsWith(pattern.slice(0, -1)) : pattern === project;

/** Imports that the table does not allow, each as one line. A project may always import itself. */
export function forbiddenImports(graph: SourceGraph, table: ImportTable): string[] {
  return graph.imports.flatMap(({ from, to }) => {
    if (!to) return [];
    const [importer, imported] = [projectOf(from), projectOf(to)];
    if (importer === imported) return [];
    const row = Object.keys(table).find((pattern) => matches(pattern, importer));
    if (!row) return [`${from}: ${importer} is in no row of the table`];
    if (table[row]?.some((pattern) => matches(pattern, imported))) return [];
    // Specs sit next to what they test, and only they may use the testing library.
    if (imported === 'testing' && isSpec(from)) return [];
    return [`${from}: ${importer} must not import ${imported}`];
  });
}

/** Ways into a library that its package.json does not offer: `@banyan/x/src/…`, or `../` out of one's own library. */
export function deepImports(graph: SourceGraph): string[] {
  return graph.imports.flatMap(({ from, specifier, to }) => {
    const relative = specifier.startsWith('.');
    const ours = specifier.startsWith('@banyan/');
    if (ours && !to) return [`${from}: ${specifier} is no door of that library`];
    if (relative && to && projectOf(to) !== projectOf(from))
      return [`${from}: ${specifier} climbs into ${projectOf(to)}`];
    return [];
  });
}

/** Files that import each other in a circle, each circle once, as `a -> b -> a`. Type-only imports count too. */
export function importCycles(graph: SourceGraph): string[] {
  const next = new Map<string, Set<string>>();
  for (const { from, to } of graph.imports)
    if (to && to !== from) next.set(from, (next.get(from) ?? new Set()).add(to));

  const cycles: string[] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string) => {
    const start = path.indexOf(file);
    if (start >= 0) {
      cycles.push([...path.slice(start), file].join(' -> '));
      return;
    }
    if (done.has(file)) return;
    path.push(file);
    for (const target of next.get(file) ?? []) visit(target);
    path.pop();
    done.add(file);
  };
  for (const file of next.keys()) visit(file);
  return cycles;
}

/** What a start from `entry` loads of npm packages whose names match, each as the way there. */
export function loadedAtStart(graph: SourceGraph, entry: string, packages: RegExp): string[] {
  const next = Map.groupBy(
    graph.imports.filter(({ late }) => !late),
    ({ from }) => from,
  );
  const ways = new Map([[entry, entry]]);
  const found: string[] = [];
  for (const [file, way] of ways)
    for (const { specifier, to } of next.get(file) ?? [])
      if (to) ways.set(to, ways.get(to) ?? `${way} -> ${to}`);
      else if (packages.test(specifier)) found.push(`${way} -> ${specifier}`);
  return found;
}

/** `export *` and `export default` in any file of ours: doors export by name. */
export function namelessExports(graph: SourceGraph): string[] {
  return graph.files.flatMap((file) =>
    graph.parse(file).statements.flatMap((statement) => {
      if (ts.isExportDeclaration(statement) && !statement.exportClause) return [`${file}: export *`];
      if (file.endsWith('/index.ts') && ts.isExportAssignment(statement)) return [`${file}: export default`];
      return [];
    }),
  );
}
