import { newId } from '@banyan/kernel';
import { eventually } from '@banyan/testing';
import type { Pool } from 'undici';

type Method = 'GET' | 'PUT' | 'POST' | 'PATCH' | 'DELETE' | 'HEAD' | 'OPTIONS';

/** What was answered, as it came. */
export class Answer {
  constructor(
    readonly status: number,
    readonly headers: Readonly<Record<string, string>>,
    readonly text: string,
    private readonly asked: string,
  ) {}

  /** The body as JSON. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- whatever was answered; the specs say what they expect
  get body(): any {
    return this.text === '' ? undefined : JSON.parse(this.text);
  }

  /** This answer, if it has one of these statuses; else it throws and shows the body. */
  expect(...statuses: number[]): this {
    if (!statuses.includes(this.status))
      throw new Error(`${this.asked}: ${this.status} instead of ${statuses.join(' or ')}: ${this.text.slice(0, 1000)}`);
    return this;
  }

  /** The problem's code, if this is a problem as RFC 9457 has it, with that status; else it throws. */
  problem(status: number): string {
    const { code, traceId, title, type, status: told } = this.expect(status).body ?? {};
    const whole = this.headers['content-type'] === 'application/problem+json' && told === status && title && type;
    if (!whole || !/^[0-9a-f]{32}$/.test(traceId)) throw new Error(`${this.asked}: not a whole problem: ${this.text}`);
    return code;
  }
}

export const address = {
  name: 'Ada Lovelace',
  line1: '12 Main Street',
  city: 'Berlin',
  postalCode: '10115',
  country: 'DE',
};

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- an order as it was answered
type Order = any;

/** Somebody who uses the shop over HTTP. */
export class Visitor {
  constructor(
    private readonly connections: Pool,
    private who: { id?: string; token?: string; email?: string } = {},
  ) {}

  get id(): string {
    return this.who.id!;
  }

  get token(): string {
    return this.who.token!;
  }

  get email(): string {
    return this.who.email!;
  }

  /** Sends bytes as they are. */
  async send(method: Method, path: string, body?: string | Buffer, headers: Record<string, string> = {}) {
    const authorization = this.who.token && { authorization: `Bearer ${this.who.token}` };
    const answer = await this.connections.request({ method, path, body, headers: { ...authorization, ...headers } });
    const text = await answer.body.text();
    return new Answer(answer.statusCode, answer.headers as Record<string, string>, text, `${method} ${path}`);
  }

  /** Sends JSON. */
  ask(method: Method, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    if (body === undefined) return this.send(method, path, undefined, headers);
    return this.send(method, path, JSON.stringify(body), { 'content-type': 'application/json', ...headers });
  }

  get(path: string, headers?: Record<string, string>): Promise<Answer> {
    return this.ask('GET', path, undefined, headers);
  }

  put(path: string, body: unknown): Promise<Answer> {
    return this.ask('PUT', path, body);
  }

  post(path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer> {
    return this.ask('POST', path, body, headers);
  }

  patch(path: string, body: unknown, headers?: Record<string, string>): Promise<Answer> {
    return this.ask('PATCH', path, body, headers);
  }

  /** Makes an account and signs in. */
  async register(name: string): Promise<void> {
    const account = { email: `${newId()}@example.com`, password: 'correct horse battery', name };
    const { id } = (await this.post('/v1/auth/register', account)).expect(201).body;
    const { email, password } = account;
    const { accessToken } = (await this.post('/v1/auth/login', { email, password })).expect(200).body;
    this.who = { id, token: accessToken, email };
  }

  async putInCart(sku: string, quantity = 1): Promise<Answer> {
    return (await this.put(`/v1/cart/items/${sku}`, { quantity })).expect(200);
  }

  order(paymentMethod = 'tok_ok', idempotencyKey: string = newId()): Promise<Answer> {
    const body = { shippingAddress: address, paymentMethod };
    return this.post('/v1/orders', body, { 'idempotency-key': idempotencyKey });
  }

  /** Puts it into the cart and orders it: the id of the order. */
  async buy(sku: string, { quantity = 1, pay = 'tok_ok' } = {}): Promise<string> {
    await this.putInCart(sku, quantity);
    return (await this.order(pay)).expect(201).body.id;
  }

  async see(orderId: string): Promise<Order> {
    return (await this.get(`/v1/orders/${orderId}`)).expect(200).body;
  }

  cancel(orderId: string): Promise<Answer> {
    return this.post(`/v1/orders/${orderId}/cancel`);
  }

  /** Waits until the order has this status, or is as `fits` wants it; the order. */
  until(orderId: string, fits: string | ((order: Order) => unknown)): Promise<Order> {
    const holds = typeof fits === 'string' ? (order: Order) => order.status === fits : fits;
    return eventually(
      async () => {
        const order = await this.see(orderId);
        if (holds(order)) return order;
        throw new Error(`the order is ${JSON.stringify(order)}`);
      },
      { timeoutMs: 40_000 },
    );
  }
}
