import type { ContextStatus, GateReading } from '@banyan/extraction/status';
import { localTime, table } from './table.js';

/** One line per context: where it is, where it is going, who owns it. Cut at the width of the terminal. */
export function contextsTable(contexts: readonly ContextStatus[], columns = Infinity): string {
  const head = ['context', 'stage', 'target', '%', 'owner', 'epoch', 'lag', 'parity', ''];
  const lines = table([head, ...contexts.map(row)]).split('\n');
  return lines.map((line) => (line.length > columns ? `${line.slice(0, columns - 1)}…` : line)).join('\n');
}

function row(status: ContextStatus): string[] {
  const { context, stage, target, percent, owner, epoch } = status;
  return [
    context,
    stage,
    target === stage ? '' : target,
    stage === 'canary' ? String(percent) : '',
    owner ?? 'changing',
    String(epoch),
    lagText(status),
    parityText(status),
    remark(status),
  ];
}

/** All that is known of one. */
export function contextPage(status: ContextStatus): string {
  const { context, stage, target, percent, owner, epoch, backfill, gates, transitions } = status;
  const canary = stage === 'canary' || target === 'canary' ? ` (${percent} % of the reads)` : '';
  const facts = [
    ['stage', stage === target ? `${stage}${canary}` : `${stage}, on its way to ${target}${canary}`],
    ['owner', `${owner ?? 'changing just now'} (epoch ${epoch})`],
    ['doing', status.doing ?? ''],
    ['blocked', status.blocked ?? ''],
    ['frozen', status.frozen ? `yes: banyan freeze ${context} --off lets it go on` : ''],
    ['lag', lagText(status)],
    ['copied', backfill ? `${backfill.rows} rows (${Math.floor(backfill.percent)} %)` : ''],
    ['parity', parityText(status)],
  ].filter(([, value]) => value);
  const parts = [`${context}\n${indented(table(facts as string[][]))}`];
  if (gates.length > 0) parts.push(`Gates\n${indented(gatesTable(gates))}`);
  if (transitions.length > 0) parts.push(`Last transitions\n${indented(table(transitions.map(transitionRow)))}`);
  return parts.join('\n\n');
}

export function gatesTable(gates: readonly GateReading[]): string {
  const rows = gates.map(({ name, ok, value, limit, reason }) => [ok ? 'ok' : 'no', name, value, limit, reason ?? '']);
  return table([['', 'gate', 'is', 'limit', ''], ...rows]);
}

const transitionRow = ({ at, from, to, actor, reason }: ContextStatus['transitions'][number]): string[] => [
  localTime(at),
  `${from} -> ${to}`,
  actor,
  reason,
];

/** In one line: what it does, and what it waits for. The first open gate says it shorter than the sentence about all. */
export function remark({ frozen, doing, blocked, gates }: ContextStatus): string {
  const [first, ...more] = gates.filter(({ ok }) => !ok);
  const gate = doing !== null && first && `${first.name} ${first.value} (needs ${first.limit})`;
  const waiting = gate ? `${gate}${more.length > 0 ? `, and ${more.length} more` : ''}` : (blocked ?? '');
  return [frozen ? 'frozen' : '', doing ?? '', waiting].filter(Boolean).join(' · ');
}

export function lagText({ lag }: ContextStatus): string {
  if (!lag) return '';
  const { ms, bytes } = lag;
  const time = ms < 10_000 ? `${Math.round(ms)} ms` : `${Math.round(ms / 1000)} s`;
  const size =
    bytes < 10_000 ? `${bytes} B` : bytes < 10e6 ? `${Math.round(bytes / 1e3)} kB` : `${Math.round(bytes / 1e6)} MB`;
  return bytes === 0 ? time : `${time}, ${size}`;
}

function parityText({ parity }: ContextStatus): string {
  if (!parity) return '';
  const { samples, differences, errors } = parity;
  const bad = [differences > 0 ? `${differences} differ` : '', errors > 0 ? `${errors} failed` : ''].filter(Boolean);
  return bad.length > 0 ? `${bad.join(', ')} of ${samples}` : `${samples} equal`;
}

export const indented = (text: string): string => text.replace(/^/gm, '  ');
