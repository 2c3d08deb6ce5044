// A JetStream client and nothing else: each event is published and acknowledged, and its handler does nothing.
import { jetstream } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { measureHandOff } from './measure.mjs';

const { natsUrl, ...measure } = JSON.parse(process.env.BENCH_CASE);
const connection = await connect({ servers: natsUrl, noAsyncTraces: true });
const client = jetstream(connection);
const manager = await client.jetstreamManager();
let messages;

const put = (payloads) =>
  Promise.all(
    payloads.map((data) => client.publish('bench.raw', JSON.stringify(data), { msgID: crypto.randomUUID() })),
  );

await measureHandOff(
  {
    async start(handle) {
      await manager.streams.add({ name: 'bench-raw', subjects: ['bench.raw'], retention: 'workqueue' });
      await manager.consumers.add('bench-raw', { durable_name: 'raw', ack_policy: 'explicit' });
      messages = await (
        await client.consumers.get('bench-raw', 'raw')
      ).consume({
        max_messages: 500,
        callback: (message) => {
          void handle(message.json());
          message.ack();
        },
      });
    },
    put,
    putOne: (data) => put([data]),
    async stop() {
      await messages.close();
      await manager.streams.delete('bench-raw');
      await connection.close();
    },
  },
  measure,
);
