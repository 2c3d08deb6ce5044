import { defineCommand, runMain } from 'citty';

const banyan = defineCommand({
  meta: { name: 'banyan', description: 'One shop, one app, and a way out for each of its contexts' },
  subCommands: {
    // Loaded when asked for: `status` needs nothing of what `up` imports.
    up: () => import('./up.command.js').then(({ up }) => up),
    status: () => import('./status.command.js').then(({ status }) => status),
  },
});

await runMain(banyan);
