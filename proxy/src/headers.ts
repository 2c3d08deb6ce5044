import type { Socket } from 'node:net';
import { BlockList, isIP } from 'node:net';

/**
 * What is done with a request header, by its name. `pass`: sent on. `single`: sent on, but more than one of it is refused,
 * because two readers would choose differently. `drop`: it is about this connection, it is ours to say, or it claims what
 * only an edge may claim. The others have a case of their own.
 */
export type Rule =
  | ('pass' | 'single' | 'drop')
  | ('host' | 'connection' | 'content-length' | 'transfer-encoding' | 'content-type' | 'expect' | 'range' | 'method')
  | ('authorization' | 'cookie' | 'session' | 'key' | 'consistency' | 'traceparent');

/** RFC 9110, 7.6.1, and those of other times. */
const hopByHop = [
  ...['keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer', 'upgrade'],
  'http2-settings',
];
/** Said by routers to apps and back; from a client they would be orders. */
const internal = ['banyan-placement', 'banyan-behind', 'banyan-fenced', 'banyan-served-by'];
const rules = new Map<string, Rule>([
  ...[...hopByHop, ...internal].map((name): [string, Rule] => [name, 'drop']),
  ...['if-match', 'banyan-signature'].map((name): [string, Rule] => [name, 'single']),
  ['host', 'host'],
  ['connection', 'connection'],
  ['content-length', 'content-length'],
  ['transfer-encoding', 'transfer-encoding'],
  ['content-type', 'content-type'],
  ['authorization', 'authorization'],
  ['cookie', 'cookie'],
  ['banyan-session', 'session'],
  ['idempotency-key', 'key'],
  ['banyan-consistency', 'consistency'],
  ['traceparent', 'traceparent'],
  ['range', 'range'],
  ['expect', 'expect'],
  ['x-http-method-override', 'method'],
  ['x-http-method', 'method'],
  ['x-method-override', 'method'],
]);

/** Who the client is, is for the app to find out from a token; who it came through, is for us to say. */
const CLAIMED =
  /^(?:forwarded|x-forwarded(?:-.*)?|x-(?:real|client|cluster-client)-ip|true-client-ip|cf-connecting-ip|x-(?:original|rewrite)-.*|(?:x-)?remote-user|x-(?:user|actor|roles?|principal|identity|authenticated|auth-(?:user|request|roles?))(?:-.*)?)$/;

export interface HeaderName {
  /** Lower case. */
  readonly name: string;
  readonly rule: Rule;
}

/** Names as clients spell them. Few different ones exist; a client that invents new ones must not fill the memory. */
const known = new Map<string, HeaderName>();
const MOST_KNOWN = 2_000;

export function headerName(spelled: string): HeaderName {
  const found = known.get(spelled);
  if (found) return found;
  const name = spelled.toLowerCase();
  // Servers that hand headers on as variables cannot tell `_` from `-`, so `x_user_id` would be `x-user-id` to them.
  const claimed = name.includes('_') || CLAIMED.test(name);
  const header: HeaderName = { name, rule: rules.get(name) ?? (claimed ? 'drop' : 'pass') };
  if (known.size < MOST_KNOWN) known.set(spelled, header);
  return header;
}

/** Names that a Connection header lists, lower case. */
export const connectionOptions = (value: string): string[] =>
  value
    .toLowerCase()
    .split(',')
    .map((option) => option.trim())
    .filter(Boolean);

const responseDrops = new Set([...hopByHop, ...internal, 'connection', 'transfer-encoding']);

/** The headers of an upstream's answer that a client may see, as a flat list. */
export function answerHeaders(headers: Record<string, string | string[] | undefined>): string[] {
  const list: string[] = [];
  const { connection } = headers;
  const named =
    connection === undefined || connection === 'keep-alive' || connection === 'close'
      ? undefined
      : connectionOptions(String(connection));
  for (const name in headers) {
    const value = headers[name];
    if (value === undefined || responseDrops.has(name) || named?.includes(name)) continue;
    if (typeof value === 'string') list.push(name, value);
    else for (const each of value) list.push(name, each);
  }
  return list;
}

/** What the proxy says about where a request came from. Kept per connection: it does not change. */
export class Origins {
  readonly #trusted = new BlockList();
  readonly #anyTrusted: boolean;
  readonly #known = new WeakMap<Socket, { address: string; element: string; trusted: boolean }>();

  /** `trusted`: addresses, or networks as `10.0.0.0/8`, of proxies in front of this one. */
  constructor(trusted: readonly string[]) {
    this.#anyTrusted = trusted.length > 0;
    for (const each of trusted) {
      const [address = '', bits] = each.split('/');
      const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
      if (bits === undefined) this.#trusted.addAddress(address, family);
      else this.#trusted.addSubnet(address, Number(bits), family);
    }
  }

  /**
   * Adds X-Forwarded-* and Forwarded (RFC 7239). What the client sent of them has been dropped before, except from a
   * trusted proxy in front, whose list is continued.
   */
  describe(socket: Socket, host: string | undefined, rawHeaders: readonly string[], headers: string[]): void {
    let origin = this.#known.get(socket);
    if (!origin) {
      const address = (socket.remoteAddress ?? 'unknown').replace(/^::ffff:/, '');
      const family = isIP(address);
      origin = {
        address,
        element: family === 6 ? `for="[${address}]"` : family === 4 ? `for=${address}` : 'for=unknown',
        trusted: this.#anyTrusted && family > 0 && this.#trusted.check(address, family === 6 ? 'ipv6' : 'ipv4'),
      };
      this.#known.set(socket, origin);
    }
    let [via, proto, element] = [origin.address, 'http', origin.element];
    if (origin.trusted) {
      const before = (name: string): string[] =>
        rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]!.toLowerCase() === name);
      via = [...before('x-forwarded-for'), via].join(', ');
      if (before('x-forwarded-proto')[0] === 'https') proto = 'https';
      host = before('x-forwarded-host')[0] ?? host;
      const chain = before('forwarded');
      if (chain.length > 0) element = `${chain.join(', ')}, ${element}`;
    }
    headers.push('x-forwarded-for', via, 'x-forwarded-proto', proto);
    if (host === undefined) headers.push('forwarded', `${element};proto=${proto}`);
    else headers.push('x-forwarded-host', host, 'forwarded', `${element};host="${host}";proto=${proto}`);
  }
}
