import { type ServerProcess, startNats } from '@banyan/testing';
import { connect } from '@nats-io/transport-node';
import { afterAll, beforeAll } from 'vitest';
import type { Broker, SharedLog } from './index.js';

/** A NATS server for one spec file, with a connection that comes back by itself. */
export class TestBroker {
  server!: ServerProcess;
  broker!: Broker;
  #close: () => Promise<void> = () => Promise.resolve();

  constructor(config = 'max_payload: 65536') {
    beforeAll(async () => {
      this.server = await startNats({ config });
      this.broker = await this.#connect();
    }, 30_000);
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

  async #connect(): Promise<Broker> {
    const connection = await connect({ servers: this.server.url, maxReconnectAttempts: -1, reconnectTimeWait: 100 });
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
