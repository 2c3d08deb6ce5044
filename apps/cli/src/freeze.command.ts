import { readConfig } from '@banyan/platform/config';
import { command } from './command.js';
import { ControlClient } from './control-client.js';

export const freeze = command({
  name: 'freeze',
  description: 'Keep a context in its stage, whatever its target and its guardrails say',
  args: {
    context: { type: 'positional', description: 'inventory, orders, …', required: true },
    off: { type: 'boolean', description: 'Let it go on', default: false },
    reason: { type: 'string', description: 'For the audit log' },
  },
  async run({ context, off, reason }, screen) {
    const client = await ControlClient.find(readConfig());
    const status = await client.freeze(context, { frozen: !off, reason });
    const next = status.stage === status.target ? '' : ` It goes on to ${status.target}.`;
    screen.done(
      { ...status },
      off
        ? `${context} is in ${status.stage} and no longer frozen.${next}`
        : `${context} is frozen in ${status.stage}: banyan freeze ${context} --off lets it go on.`,
    );
  },
});
