// The process that is asked: our way in by TCP and NATS, and those of the peers.
import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessagePattern, Transport } from '@nestjs/microservices';
import { Receiver, allLocal } from '@banyan/messaging';
import { Nats } from '@banyan/messaging/nats';
import { listenNats } from '@banyan/messaging/nats-rpc';
import { RpcController, listenRpc } from '@banyan/messaging/tcp';
import { AuthModule } from '@banyan/platform/auth';
import { createHttpApp } from '@banyan/platform/http';
// A whole app would need a database, and a query asks it for nothing.
import { Bus, Endpoint, unitOfWork } from '../../support/messaging-engine.mjs';
import { NEST, RAW, config, quote, toy } from './toy.mjs';

const [natsUrl] = process.argv.slice(2);
const bus = new Bus(allLocal);
bus.serve(new Endpoint(toy, { quote: async (input) => quote(input) }, unitOfWork('toy')));
class Ours {}
Module({
  imports: [AuthModule.with({ keySource: () => async () => ({ keys: [] }) })],
  controllers: [RpcController],
  providers: [{ provide: Receiver, useValue: new Receiver(bus) }],
})(Ours);
const app = await createHttpApp(Ours, config, { logger: false });
await app.init();
const port = await listenRpc(app, { host: '127.0.0.1', port: 0 });
const nats = await Nats.connect({ servers: [natsUrl], tls: {} }, { name: 'monolith' });
await listenNats(app, { nats, side: 'monolith', serves: [toy], contracts: [toy] });

nats.connection.subscribe(RAW, {
  queue: 'bench',
  callback: (_error, message) => message.respond(JSON.stringify(quote(message.json()))),
});

class Plain {
  quote(input) {
    return quote(input);
  }
}
Controller()(Plain);
MessagePattern(NEST)(Plain.prototype, 'quote', Object.getOwnPropertyDescriptor(Plain.prototype, 'quote'));
class Peer {}
Module({ controllers: [Plain] })(Peer);
const peer = await NestFactory.createMicroservice(Peer, {
  transport: Transport.NATS,
  options: { servers: [natsUrl], queue: 'bench' },
  logger: false,
});
await peer.listen();

process.on('message', () => {
  const { user, system } = process.cpuUsage();
  process.send({ cpuUs: user + system });
});
process.on('disconnect', () => process.exit());
process.send({ port });
