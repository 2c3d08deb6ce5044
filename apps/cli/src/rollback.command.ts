import { stages } from '@banyan/extraction/stage';
import { readConfig } from '@banyan/platform/config';
import { command, numberOf, oneOf } from './command.js';
import { ControlClient } from './control-client.js';
import { CommandError } from './exit.js';
import { arrived } from './follow.js';
import { watchJourney } from './journey.js';

export const rollback = command({
  name: 'rollback',
  description: 'Take a context back, stage by stage, and follow it to the end',
  args: {
    context: { type: 'positional', description: 'inventory, orders, …', required: true },
    to: { type: 'string', description: stages.join(', '), default: 'monolith' },
    reason: { type: 'string', description: 'For the audit log' },
    timeout: { type: 'string', description: 'Seconds to follow it', default: '600' },
  },
  async run({ context, to, reason, timeout }, screen) {
    const goal = { stage: oneOf('stage', to, stages) };
    const timeoutMs = numberOf('timeout', timeout, 1, 86_400) * 1_000;
    const client = await ControlClient.find(readConfig());
    const from = await client.context(context);
    if (arrived(from, goal)) return screen.done({ ...from }, `${context} is in ${goal.stage} already.`);
    const ahead = stages.indexOf(goal.stage) > Math.max(stages.indexOf(from.stage), stages.indexOf(from.target));
    if (ahead)
      throw new CommandError(
        'REFUSED',
        `${context} is in ${from.stage}, and ${goal.stage} is not behind it:`,
        `banyan extract ${context} --to ${goal.stage} goes there.`,
      );
    await client.rollback(context, { to: goal.stage, reason });
    const there = await watchJourney({ client, screen, from, goal, timeoutMs });
    screen.done({ ...there }, `${context} is back in ${goal.stage}.`);
  },
});
