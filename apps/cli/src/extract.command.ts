import { type Stage, stages } from '@banyan/extraction/stage';
import { readConfig } from '@banyan/platform/config';
import { command, numberOf, oneOf } from './command.js';
import { ControlClient } from './control-client.js';
import { CommandError } from './exit.js';
import { type Goal, arrived } from './follow.js';
import { watchJourney } from './journey.js';

const targets = stages.filter((stage) => stage !== 'monolith');

export const extract = command({
  name: 'extract',
  description: 'Move a context out of the monolith, stage by stage, and follow it to the end',
  args: {
    context: { type: 'positional', description: 'inventory, orders, …', required: true },
    to: { type: 'string', description: targets.join(', '), default: 'live' },
    percent: { type: 'string', description: 'Share of the readers in canary, 0 to 100' },
    force: {
      type: 'boolean',
      description: 'Skip the gates on the way; it is written to the audit log',
      default: false,
    },
    reason: { type: 'string', description: 'For the audit log' },
    timeout: { type: 'string', description: 'Seconds to follow it', default: '600' },
  },
  async run({ context, to, percent, force, reason, timeout }, screen) {
    const goal: Goal = { stage: stageOf(to) };
    if (percent !== undefined) goal.percent = numberOf('percent', percent, 0, 100);
    if (goal.percent !== undefined && goal.stage !== 'canary')
      throw new CommandError(
        'BAD_USAGE',
        `--percent is for a canary, and this goes to ${goal.stage}:`,
        'add --to canary.',
      );
    const timeoutMs = numberOf('timeout', timeout, 1, 86_400) * 1_000;
    const client = await ControlClient.find(readConfig());
    const from = await client.context(context);
    if (arrived(from, goal)) return screen.done({ ...from }, `${context} is ${goal.stage} already.`);
    await client.target(context, { ...goal, force: force || undefined, reason });
    const there = await watchJourney({ client, screen, from, goal, timeoutMs });
    screen.done({ ...there }, said(context, goal));
  },
});

function stageOf(to: string): Stage {
  if (to === 'monolith') throw new CommandError('BAD_USAGE', 'That is the way back:', 'banyan rollback takes it.');
  return oneOf('stage', to, targets);
}

function said(context: string, { stage }: Goal): string {
  if (stage === 'live') return `${context} is live: its service owns it. banyan rollback ${context} takes it back.`;
  return `${context} is in ${stage}. banyan extract ${context} goes on, banyan rollback ${context} takes it back.`;
}
