import { contracts } from '@banyan/contracts';
import type { AnyContract } from '@banyan/kernel';
import ts from 'typescript';
import { SourceGraph, everyNode, isSpec, projectOf } from './source-graph.js';
import { migrationSql } from './sql.js';

export interface Call {
  from: string;
  to: string;
  operations: string[];
}

/** docs/module-map.md: what each context owns, publishes, calls and hears, from the contracts and the source. */
export function moduleMap(graph: SourceGraph = SourceGraph.read()): string {
  const names = contracts.map(({ name }) => name);
  const tables = tablesOf(names);
  const calls = callsBetween(graph, contracts);
  return [
    '# Module map',
    '',
    'Written by `test/architecture/module-map.spec.ts` from the contracts, the migrations and the source; the same test',
    'fails when this page has drifted. To rewrite it: `UPDATE=1 npx vitest run test/architecture`.',
    '',
    ...diagram(calls),
    '',
    '## Contexts',
    ...contracts.flatMap((contract) => section(contract, tables.get(contract.name) ?? [], calls)),
    '',
  ].join('\n');
}

function diagram(calls: Call[]): string[] {
  const heard = new Map<string, string[]>();
  for (const { name, subscribes } of contracts)
    for (const event of subscribes) {
      const [publisher, short] = event.split('.') as [string, string];
      const key = `${publisher} -.-> ${name}`;
      heard.set(key, [...(heard.get(key) ?? []), short]);
    }
  return [
    'A solid arrow is a call through the bus, a dotted one an event.',
    '',
    '```mermaid',
    'flowchart LR',
    ...contracts.map(({ name }) => `  ${name}`),
    ...calls.filter(({ from, to }) => from !== to).map(({ from, to }) => `  ${from} --> ${to}`),
    ...[...heard].map(([arrow, events]) => `  ${arrow.replace('-.->', `-. ${events.join('<br/>')} .->`)}`),
    '```',
  ];
}

function section(contract: AnyContract, tables: string[], calls: Call[]): string[] {
  const listeners = (event: string) =>
    contracts.filter(({ subscribes }) => subscribes.includes(event)).map(({ name }) => name);
  const events = Object.entries(contract.events as Record<string, { name: string; version: number }>).map(
    ([short, { name, version }]) => `\`${short}\` v${version}${heardBy(listeners(name))}`,
  );
  const outgoing = calls
    .filter(({ from, to }) => from === contract.name && to !== from)
    .map(({ to, operations }) => `${to} (${code(operations) || 'nothing yet'})`);
  return [
    '',
    `### ${contract.name}`,
    '',
    '| | |',
    '| --- | --- |',
    `| routes | ${code(contract.routes) || '–'} |`,
    `| tables | ${code(tables) || '–'} |`,
    `| queries | ${code(Object.keys(contract.queries)) || '–'} |`,
    `| commands | ${code(Object.keys(contract.commands)) || '–'} |`,
    `| events | ${events.join('<br>') || '–'} |`,
    `| calls | ${outgoing.join('<br>') || '–'} |`,
    `| subscribes to | ${code([...contract.subscribes]) || '–'} |`,
  ];
}

const code = (words: string[]): string => words.map((word) => `\`${word}\``).join(', ');
const heardBy = (names: string[]): string => (names.length ? ` → ${names.join(', ')}` : '');

/** Tables that a context's migrations leave behind. */
function tablesOf(contexts: string[]): Map<string, string[]> {
  const tables = new Map<string, string[]>();
  for (const { context, text } of migrationSql(contexts)) {
    const kept = new Set(tables.get(context));
    for (const [, verb, name] of text.matchAll(/\b(create|drop)\s+table\s+(?:if\s+(?:not\s+)?exists\s+)?"?(\w+)"?/gi))
      if (name) kept[verb?.toLowerCase() === 'create' ? 'add' : 'delete'](name);
    tables.set(context, [...kept].sort());
  }
  return tables;
}

/** Each pair of contexts of which one has the other's client injected, and the operations that it uses. */
export function callsBetween(graph: SourceGraph, all: readonly AnyContract[]): Call[] {
  const found = new Map<string, Set<string>>();
  for (const file of graph.files) {
    const project = projectOf(file);
    if (!project.startsWith('contexts/') || isSpec(file)) continue;
    const source = graph.parse(file);
    const clients = injectedClients(source);
    if (clients.size === 0) continue;
    for (const contract of clients.values()) {
      const key = `${project.slice('contexts/'.length)} ${contract}`;
      if (!found.has(key)) found.set(key, new Set());
    }
    everyNode(source, (node) => {
      // this.<client>.<operation>
      if (!ts.isPropertyAccessExpression(node) || !ts.isPropertyAccessExpression(node.expression)) return;
      const contract = clients.get(node.expression.name.text);
      const definition = all.find(({ name }) => name === contract);
      if (contract && definition && node.name.text in definition.operations)
        found.get(`${project.slice('contexts/'.length)} ${contract}`)?.add(node.name.text);
    });
  }
  const order = all.map(({ name }) => name);
  return [...found]
    .map(([key, operations]) => {
      const [from, to] = key.split(' ') as [string, string];
      return { from, to, operations: [...operations].sort() };
    })
    .sort((a, b) => order.indexOf(a.from) - order.indexOf(b.from) || order.indexOf(a.to) - order.indexOf(b.to));
}

/** Property name -> context, for every `@InjectClient(context) private readonly property` of a file. */
function injectedClients(source: ts.SourceFile): Map<string, string> {
  const clients = new Map<string, string>();
  everyNode(source, (node) => {
    if (!ts.isParameter(node) && !ts.isPropertyDeclaration(node)) return;
    for (const decorator of ts.getDecorators(node) ?? []) {
      const call = decorator.expression;
      if (!ts.isCallExpression(call) || call.expression.getText() !== 'InjectClient') continue;
      const [contract] = call.arguments;
      if (contract) clients.set(node.name.getText(), contract.getText());
    }
  });
  return clients;
}
