import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds of CPU that a server's processes have used: those below `parent`, and itself. */
export function cpuOfServer(parent) {
  let ticks = 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (Number(pid) === parent || Number(fields[1]) === parent) ticks += Number(fields[11]) + Number(fields[12]);
    } catch {
      // gone meanwhile
    }
  }
  return ticks * 10;
}

const payload = (i) => ({ id: `order-${i}`, total: 1999, currency: 'EUR', items: [{ sku: 'SKU-1', quantity: 2 }] });

/**
 * Producer and consumer in one process, as in a monolith. `contestant` has start(handler), put(payloads), putOne(payload)
 * and stop(); the handler is called once for each payload. Sends events/s from the first put to the last handled, and
 * how long a single one takes in an idle system, from before it is put until it is handled.
 */
export async function measureHandOff(contestant, { events, batch, singles, serverPids }) {
  let seen = 0;
  let wanted = 0;
  let arrived = () => {};
  let single;
  await contestant.start(async (data) => {
    if (single) return single();
    if (++seen === wanted) arrived();
  });
  const bulk = async (count) => {
    seen = 0;
    wanted = count;
    const all = new Promise((done) => (arrived = done));
    for (let from = 0; from < count; from += batch)
      await contestant.put(Array.from({ length: Math.min(batch, count - from) }, (_, i) => payload(from + i)));
    await all;
  };
  await bulk(Math.ceil(events / 10));
  await sleep(500);

  const cpuOfServers = () => serverPids.reduce((sum, pid) => sum + cpuOfServer(pid), 0);
  const [server, own, from] = [cpuOfServers(), process.cpuUsage(), performance.now()];
  await bulk(events);
  const perSecond = events / ((performance.now() - from) / 1_000);
  await sleep(200); // what is settled after the last handler belongs to it
  const used = process.cpuUsage(own);
  const serverCpu = cpuOfServers() - server;

  await sleep(1_000);
  const waits = [];
  for (let i = 0; i < singles + 10; i++) {
    const put = performance.now();
    const handled = new Promise((done) => (single = () => done(performance.now() - put)));
    const [wait] = await Promise.all([handled, contestant.putOne(payload(events + i))]);
    if (i >= 10) waits.push(wait);
    await sleep(10 + Math.random() * 20);
  }
  await contestant.stop();
  process.send({
    perSecond,
    waits,
    nodeUs: (used.user + used.system) / events,
    serverUs: (serverCpu * 1_000) / events,
  });
  process.disconnect();
}
