import { readConfig } from '@banyan/platform/config';
import { defineCommand } from 'citty';
import { command } from './command.js';
import { ControlClient, type DeadLetter } from './control-client.js';
import { table } from './table.js';

const list = command({
  name: 'events list',
  description: 'Events that were given up after too many attempts',
  args: { context: { type: 'positional', description: 'Only of this context', required: false } },
  async run({ context }, screen) {
    const client = await ControlClient.find(readConfig());
    if (context) await client.context(context); // an unknown one has no events, which would look well
    const items = (await client.deadLetters()).filter((each) => !context || each.context === context);
    screen.done({ items }, items.length === 0 ? 'No event is parked.' : page(items));
  },
});

const redrive = command({
  name: 'events redrive',
  description: 'Deliver parked events again',
  args: {
    context: { type: 'positional', description: 'inventory, orders, …', required: true },
    ids: { type: 'string', description: 'Only these, separated by commas' },
  },
  async run({ context, ids }, screen) {
    const client = await ControlClient.find(readConfig());
    const chosen = ids?.split(',').map((id) => id.trim());
    const result = await client.redrive({ context, ids: chosen });
    const what = chosen ? `${chosen.length} of the events` : 'all events';
    screen.done({ context, result }, `${what} parked in ${context} are delivered again.`);
  },
});

export const events = defineCommand({
  meta: { name: 'events', description: 'Events that could not be delivered' },
  subCommands: { list, redrive },
});

/** Whatever a letter says of itself that fits on a line. */
function page(items: readonly DeadLetter[]): string {
  const short = (value: unknown) => (typeof value === 'object' || value === undefined ? '' : String(value));
  const names = [...new Set(items.flatMap((item) => Object.keys(item).filter((name) => short(item[name]) !== '')))];
  return table([names, ...items.map((item) => names.map((name) => short(item[name]).slice(0, 80)))]);
}
