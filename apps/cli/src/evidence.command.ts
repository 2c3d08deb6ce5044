import { readConfig } from '@banyan/platform/config';
import { command } from './command.js';
import { gatesTable, indented } from './context-text.js';
import { ControlClient } from './control-client.js';
import { localTime } from './table.js';

export const evidence = command({
  name: 'evidence',
  description: 'With which readings of the gates a context went from stage to stage',
  args: { context: { type: 'positional', description: 'inventory, orders, …', required: true } },
  async run({ context }, screen) {
    const client = await ControlClient.find(readConfig());
    const items = await client.evidence(context);
    const pages = items.map(({ at, from, to, gates, forced }) => {
      const head = `${localTime(at)}  ${from} -> ${to}${forced ? '  (forced: gates were skipped)' : ''}`;
      return gates.length > 0 ? `${head}\n${indented(gatesTable(gates))}` : head;
    });
    screen.done({ context, items }, pages.length > 0 ? pages.join('\n\n') : `${context} has not moved yet.`);
  },
});
