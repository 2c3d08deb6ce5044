import { type ServerProcess, startNats } from '@banyan/testing';
import { type JetStreamClient, type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { afterAll, beforeAll } from 'vitest';
import { Bundle } from './bundle.js';
import type { Broker, SharedLog } from './index.js';

/* Longer than a bridge waits: on a busy machine an answer may take some seconds. */
const ANSWER_MS = 20_000;

/** Nothing is wrong: an answer of NATS, or the publisher, took longer than is waited for, and is asked for again. */
export const isSlowness = ({ name, message }: Error): boolean =>
  name === 'TimeoutError' || message === 'The log is not published';

/** Asks again when the answer of NATS took too long. */
export async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!isSlowness(error as Error)) throw error;
    }
  }
}

/** A NATS server for one spec file, with a connection that comes back by itself. */
export class TestBroker {
  server!: ServerProcess;
  broker!: Broker;
  #close: () => Promise<void> = () => Promise.resolve();

  constructor(config = 'max_payload: 65536') {
    beforeAll(async () => {
      this.server = await startNats({ config });
      this.broker = await this.#connect();
    });
    afterAll(async () => {
      await this.#close();
      await this.server?.stop();
    });
  }

  log(name: string, more: Partial<SharedLog> = {}): SharedLog {
    return {
      broker: this.broker,
      stream: `log-${name}`,
      subject: `log.${name}`,
      maxBytes: 256 << 20,
      publish: true,
      ...more,
    };
  }

  /** For what a spec publishes by itself. */
  get client(): JetStreamClient {
    return jetstream(this.broker.connection, { timeout: ANSWER_MS });
  }

  /** For what a spec does to streams by itself. */
  manager(): Promise<JetStreamManager> {
    return jetstreamManager(this.broker.connection, { checkAPI: false, timeout: ANSWER_MS });
  }

  async #connect(): Promise<Broker> {
    const connection = await connect({
      servers: this.server.url,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 100,
      // A server that is killed in the middle of a greeting is waited for as long.
      timeout: 3_000,
      waitOnFirstConnect: true,
    });
    const listeners = new Set<(connected: boolean) => void>();
    let connected = true;
    const tell = (now: boolean) => {
      connected = now;
      for (const listener of listeners) listener(now);
    };
    void (async () => {
      for await (const { type } of connection.status())
        if (type === 'disconnect' || type === 'reconnect') tell(type === 'reconnect');
    })();
    this.#close = () => connection.close();
    return {
      connection,
      get connected() {
        return connected;
      },
      maxPayload: connection.info!.max_payload,
      onChange: (listener) => {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    };
  }
}

/** The bundle of one transaction with one message in it, whose prefix is `p`: its commit record stands at `end - 1`. */
export function transaction(end: bigint, text: string): Buffer {
  const begin = Buffer.alloc(21, 0);
  begin.write('B', 0);
  begin.writeBigUInt64BE(end - 1n, 1);
  const content = Buffer.from(text);
  const message = Buffer.concat([Buffer.from('M\x01'), Buffer.alloc(8), Buffer.from('p\0'), Buffer.alloc(4), content]);
  message.writeUInt32BE(content.length, 12);
  const commit = Buffer.alloc(26, 0);
  commit.write('C', 0);
  commit.writeBigUInt64BE(end, 10);
  const bundle = new Bundle();
  for (const each of [begin, message, commit]) bundle.add(each);
  return bundle.take();
}
