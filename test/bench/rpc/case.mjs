// The process that asks, one way of asking at a time.
import 'reflect-metadata';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { ClientProxyFactory, Transport } from '@nestjs/microservices';
import { newScope, runInScope } from '@banyan/messaging';
import { Nats } from '@banyan/messaging/nats';
import { NatsPeers } from '@banyan/messaging/nats-rpc';
import { TcpPeers } from '@banyan/messaging/tcp';
import { rpcToken } from '@banyan/platform/auth';
import { withRemoteParent } from '@banyan/platform/telemetry';
import { firstValueFrom } from 'rxjs';
import { Bus } from '../../support/messaging-engine.mjs';
import { cpuOfServer } from '../events/measure.mjs';
import { NEST, RAW, config, inputOf, toy } from './toy.mjs';

const { calls, atOnce, singles, natsUrl, brokerPid } = JSON.parse(process.env.BENCH_CASE);
const server = fork(join(import.meta.dirname, 'server.mjs'), [natsUrl], {
  stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
});
const [{ port }] = await once(server, 'message');
const cpuOfOther = async () => {
  server.send('cpu?');
  return (await once(server, 'message'))[0].cpuUs;
};

const through = (peers) => {
  const via = peers.to({ context: 'toy', side: 'monolith', addresses: [{ host: '127.0.0.1', port }] });
  const client = new Bus({ decide: () => ({ at: 'remote', via }), changed: async () => {} }).client(toy);
  return (i) => client.quote(inputOf(i));
};
const nats = () => Nats.connect({ servers: [natsUrl], tls: {} }, { name: 'monolith' });
const ways = {
  'banyan over TCP': async () => through(new TcpPeers(rpcToken(config))),
  'banyan over NATS': async () => through(new NatsPeers(await nats(), rpcToken(config))),
  'NATS request alone, JSON both ways': async () => {
    const { connection } = await nats();
    return async (i) => (await connection.request(RAW, JSON.stringify(inputOf(i)), { timeout: 10_000 })).json();
  },
  'Nest over NATS, its own client': async () => {
    const client = ClientProxyFactory.create({ transport: Transport.NATS, options: { servers: [natsUrl] } });
    await client.connect();
    return (i) => firstValueFrom(client.send(NEST, inputOf(i)));
  },
};
const ask = await ways[process.argv[2]]();

const actor = { kind: 'user', id: '019012d0-0000-7000-8000-00000000000a', roles: ['customer'] };
/** As inside of a request: there is an actor, a deadline and a trace. */
const inRequest = (work) =>
  withRemoteParent(undefined, 'request', undefined, () => runInScope(newScope(actor, Date.now() + 600_000), work));

const bulk = (count) =>
  inRequest(async () => {
    let next = 0;
    const worker = async () => {
      while (next < count) {
        const i = next++;
        const { total } = await ask(i);
        if (total !== (1 + (i & 7)) * 1999) throw new Error(`a wrong answer: ${total}`);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
  });
await bulk(Math.ceil(calls / 4));
await bulk(Math.ceil(calls / 4));

const [other, broker, own, from] = [await cpuOfOther(), cpuOfServer(brokerPid), process.cpuUsage(), performance.now()];
await bulk(calls);
const perSecond = calls / ((performance.now() - from) / 1_000);
const { user, system } = process.cpuUsage(own);
const [serverCpu, brokerCpu] = [(await cpuOfOther()) - other, cpuOfServer(brokerPid) - broker];

const waits = [];
await inRequest(async () => {
  for (let i = 0; i < singles; i++) {
    const asked = performance.now();
    await ask(i);
    waits.push(performance.now() - asked);
  }
});
await new Promise((done) =>
  process.send(
    {
      perSecond,
      waits,
      callerUs: (user + system) / calls,
      serverUs: serverCpu / calls,
      brokerUs: (brokerCpu * 1_000) / calls,
    },
    done,
  ),
);
server.disconnect();
process.exit();
