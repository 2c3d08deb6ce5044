#!/usr/bin/env node
// Committed, because npm links a workspace's command at `npm ci`, when nothing has been built yet.
import { existsSync } from 'node:fs';
import module from 'node:module';
import { join } from 'node:path';

const main = join(import.meta.dirname ?? '', '../dist/main.js');
if (Number.parseInt(process.versions.node, 10) < 24) {
  console.error(`banyan needs Node 24 and this is ${process.version}: npx banyan uses the one that npm ci installed.`);
  process.exit(1);
}
if (!existsSync(main)) {
  console.error('banyan is not built yet: run npm run build.');
  process.exit(1);
}
// Compiled code is kept between starts: 90 ms less for a command.
module.enableCompileCache(join(import.meta.dirname, '../../../node_modules/.cache/banyan'));
await import(main);
