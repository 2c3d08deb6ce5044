import { Client } from 'undici';

/** One user's keep-alive connection: one request at a time. */
export class Connection {
  headers = {};
  #client;

  constructor(url) {
    this.#client = new Client(url, { pipelining: 1, headersTimeout: 60_000 });
  }

  async send(method, path, body, headers) {
    const answer = await this.#client.request({
      method,
      path,
      body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
      headers: { ...(body !== undefined && { 'content-type': 'application/json' }), ...this.headers, ...headers },
    });
    const text = await answer.body.text();
    return { status: answer.statusCode, headers: answer.headers, text, json: text ? JSON.parse(text) : undefined };
  }

  /** The body of an answer with one of `statuses`. Throws on every other one. */
  async expect(statuses, method, path, body, headers) {
    const answer = await this.send(method, path, body, headers);
    if (![statuses].flat().includes(answer.status))
      throw new Error(`${method} ${path}: ${answer.status} ${answer.text.slice(0, 300)}`);
    return answer.json;
  }

  close() {
    return this.#client.close();
  }
}
