// What the system does a second, beside others on the same machine in the same run.
//   npm run bench                     everything
//   npm run bench bus events checkout  those named
//   npm run bench checkout -- --no-peers --quick
import os from 'node:os';
import build from '../../tools/build.mjs';
import { options } from '../support/report.mjs';

const { words, ...given } = options(
  {
    /** Whole measurements, of which the median counts. */
    repeat: 3,
    /** Also what we are compared with; it installs itself into .banyan/peers. */
    peers: true,
    /** Short windows: to see that it works, not how fast it is. */
    quick: false,
    /** Users at once, of `checkout`. */
    users: 16,
    /** Writes a CPU profile of the monolith while purchases are made into .banyan/bench-profile. */
    profile: false,
    build: true,
  },
  process.argv.slice(2),
);
if (given.quick) given.repeat = 1;
if (given.build) await build();

const benches = {
  bus: async () => (await import('./bus.mjs')).benchBus,
  rpc: async () => (await import('./rpc.mjs')).benchRpc,
  events: async () => (await import('./events.mjs')).benchEvents,
  checkout: async () => (await import('./checkout.mjs')).benchCheckout,
  bridge: async () => (await import('./bridge.mjs')).benchBridge,
  proxy: async () => (await import('./proxy.mjs')).benchProxy,
  handover: async () => (await import('./handover.mjs')).benchHandover,
};
const unknown = words.filter((name) => !(name in benches));
if (unknown.length > 0) {
  console.error(`There is no bench ${unknown.join(', ')}. There are: ${Object.keys(benches).join(', ')}`);
  process.exit(2);
}

console.log(
  `${os.cpus().length} × ${os.cpus()[0].model.trim()}, Node ${process.version}, ${new Date().toISOString().slice(0, 10)}, load ${os
    .loadavg()
    .map((load) => load.toFixed(1))
    .join(' ')}\n`,
);
for (const name of words.length > 0 ? words : Object.keys(benches)) {
  const bench = await benches[name]();
  const { title, notes, tables } = await bench(given);
  console.log(`## ${title}\n\n${tables.join('\n\n')}\n\n${notes.join('\n')}\n`);
}
process.exit(0);
