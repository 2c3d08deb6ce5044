import { readConfig } from '@banyan/platform/config';
import { Simulator } from './simulator.js';

const { psp } = readConfig();
const simulator = await Simulator.start(psp);

let stopping: Promise<void> | undefined;
const stop = () => (stopping ??= simulator.stop().then(() => process.exit(0)));

process.on('SIGTERM', stop);
// Ctrl-C reaches the whole group. A parent still needs its provider while it ends its work; it hangs up when it has.
process.on('SIGINT', () => void (process.connected || stop()));
process.on('disconnect', stop);
process.send?.({ ready: { port: simulator.port } });
