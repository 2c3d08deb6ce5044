import type { Divergence } from '@banyan/extraction/parity';
import { readConfig } from '@banyan/platform/config';
import { command } from './command.js';
import { indented } from './context-text.js';
import { ControlClient } from './control-client.js';
import { CommandError } from './exit.js';
import { localTime, table } from './table.js';

export const diff = command({
  name: 'diff',
  description: 'Where the answers of a context’s two sides differ',
  args: {
    context: { type: 'positional', description: 'inventory, orders, …', required: true },
    acknowledge: { type: 'string', description: 'Accept the difference with this id; needs --reason' },
    reason: { type: 'string', description: 'Why it is accepted' },
  },
  async run({ context, acknowledge, reason }, screen) {
    const client = await ControlClient.find(readConfig());
    if (acknowledge !== undefined) {
      if (!reason) throw new CommandError('BAD_USAGE', 'A difference is accepted for a reason:', 'add --reason "…".');
      await client.acknowledge(context, acknowledge, reason);
      return screen.done({ context, acknowledged: acknowledge }, `${acknowledge} of ${context} is accepted.`);
    }
    const items = await client.divergences(context);
    screen.done({ context, items }, items.length === 0 ? `No differences are known of ${context}.` : page(items));
  },
});

function page(items: readonly Divergence[]): string {
  const head = ['id', 'operation', 'path', 'kind', 'verdict', 'count', 'last seen', 'accepted'];
  const rows = items.map(({ id, operation, path, kind, verdict, count, lastSeen, acknowledged }) => [
    id,
    operation,
    path || '(all of it)',
    kind,
    verdict,
    String(count),
    localTime(lastSeen),
    acknowledged ? `by ${acknowledged.by}: ${acknowledged.reason}` : '',
  ]);
  const samples = items.flatMap(({ id, samples: [sample] }) =>
    sample ? [`${id}  ${sample.request ?? ''} ${sample.pointer}\n${indented(sides(sample))}`] : [],
  );
  return [table([head, ...rows]), ...samples].join('\n\n');
}

const sides = ({ expected, actual }: Divergence['samples'][number]): string =>
  `owner     ${expected ?? '(nothing)'}\ncandidate ${actual ?? '(nothing)'}`;
