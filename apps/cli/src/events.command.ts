import { readConfig } from '@banyan/platform/config';
import { defineCommand } from 'citty';
import { command } from './command.js';
import { ControlClient, type DeadLetter } from './control-client.js';
import { localTime, table } from './table.js';

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
    const redriven = await client.redrive({ context, ids: chosen });
    const what = redriven === 1 ? '1 event is' : `${redriven} events are`;
    screen.done({ context, redriven }, `${what} delivered again.`);
  },
});

export const events = defineCommand({
  meta: { name: 'events', description: 'Events that could not be delivered' },
  subCommands: { list, redrive },
});

function page(items: readonly DeadLetter[]): string {
  const head = ['event', 'type', 'subscriber', 'of', 'attempts', 'from', 'error'];
  const rows = items.map(({ eventId, type, subscriber, aggregate, attempts, occurredAt, error }) => [
    eventId,
    type,
    subscriber,
    aggregate,
    String(attempts),
    localTime(occurredAt),
    (error ?? '').split('\n', 1)[0] as string,
  ]);
  return table([head, ...rows]);
}
