import { type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { payments } from '@banyan/contracts';
import { newId } from '@banyan/kernel';
import type { Client } from '@banyan/messaging';
import {
  CancellingOrders,
  type ContextApp,
  type PspProcess,
  type TestDatabase,
  cancellingOrders,
  contextApp,
  startPsp,
} from '@banyan/testing';
import { PaymentsModule } from './payments.module.js';

export interface Webhook {
  body: string;
  signature?: string;
}

/** What webhooks are signed with. */
export const secret = 'a secret for webhooks in specs';

export const of = ({ orderId }: { orderId: string }) => ({ orderId });
export const eur = (amount: number) => ({ amount, currency: 'EUR' });
export const ask = (method = 'tok_ok', amount = 1000) => ({
  orderId: newId(),
  customerId: newId(),
  amount: eur(amount),
  method,
});

/**
 * The payments context and its provider. Real: Postgres, the messaging engine, HTTP, the provider simulator's process.
 * Orders is a stand-in that only cancels.
 */
export class PaymentsShop {
  /** The wire that webhooks come by. It can lose them, and it remembers them. */
  readonly wire = { lost: false, hooks: [] as Webhook[] };
  psp!: PspProcess;
  context!: ContextApp;
  private readonly relay: Server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += String(chunk);
    const hook = { body, signature: String(request.headers['banyan-signature']) };
    if (this.wire.lost) return response.writeHead(204).end();
    this.wire.hooks.push(hook);
    response.writeHead(await this.tell(hook)).end();
  });

  private constructor() {}

  /** `pspTimeoutMs`: how long an answer of the provider is waited for, three times. */
  static async open(test: TestDatabase, { pspTimeoutMs = 2_500 } = {}): Promise<PaymentsShop> {
    const shop = new PaymentsShop();
    try {
      await shop.start(test, pspTimeoutMs);
    } catch (error) {
      await shop.close();
      throw error;
    }
    return shop;
  }

  private async start(test: TestDatabase, pspTimeoutMs: number): Promise<void> {
    await new Promise<void>((listening) => this.relay.listen(0, '127.0.0.1', listening));
    const hook = `http://127.0.0.1:${(this.relay.address() as AddressInfo).port}/`;
    this.psp = await startPsp({ PSP_WEBHOOK_URL: hook, PSP_WEBHOOK_SECRET: secret });
    this.context = await contextApp({
      test,
      module: PaymentsModule,
      contracts: [payments, cancellingOrders],
      providers: [CancellingOrders],
      settings: { PSP_URL: this.psp.url, PSP_WEBHOOK_SECRET: secret, PSP_TIMEOUT_MS: String(pspTimeoutMs) },
    });
  }

  get client(): Client<typeof payments> {
    return this.context.client(payments);
  }

  /** Delivers a webhook; the status of the answer. */
  async tell({ body, signature }: Webhook): Promise<number> {
    const headers = signature === undefined ? undefined : { 'banyan-signature': signature };
    return (await this.context.request('POST', '/v1/webhooks/psp', { body, headers })).status;
  }

  /** An order that was paid. */
  async captured(amount = 1000) {
    const order = ask('tok_ok', amount);
    const { id } = await this.client.authorise(order);
    await this.client.capture(of(order));
    return { ...order, id };
  }

  async close(): Promise<void> {
    this.relay.closeAllConnections();
    this.relay.close();
    await this.context?.close();
    await this.psp?.stop();
  }
}
