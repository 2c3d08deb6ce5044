import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type Server, type ServerResponse, createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, freePort } from '@banyan/testing';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { RoutingFollower } from './routing-follower.js';
import type { Routing } from './routing.js';

const token = 'a token of the routers';
/** A start that waits for a first word does so for as long as this, ms. */
const LONG = 30_000;
const state = (revision: number): Routing => ({
  revision,
  monolith: { http: ['http://127.0.0.1:3000'], rpc: [{ host: '127.0.0.1', port: 3001 }] },
  contexts: {},
});
const said = (data: unknown) => `event: routing\ndata: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;

/** A control plane that says what it is told to. */
class Control {
  readonly #streams = new Set<ServerResponse>();
  #server: Server | undefined;
  port = 0;
  first: unknown;
  refused = 0;
  /** Another one acts. */
  standsBy = false;

  async start(): Promise<void> {
    const server = createServer((request, response) => {
      if (request.headers.authorization !== `Bearer ${token}`) {
        this.refused++;
        return response.writeHead(401).end();
      }
      if (this.standsBy) return response.writeHead(503).end();
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      if (this.first) response.write(said(this.first));
      else response.flushHeaders();
      this.#streams.add(response.on('close', () => this.#streams.delete(response)));
    });
    // Not one of the system's own: it is listened on again after it was dead.
    this.port ||= await freePort();
    await once(server.listen(this.port, '127.0.0.1'), 'listening');
    this.#server = server;
  }

  say(data: unknown): void {
    for (const stream of this.#streams) stream.write(said(data));
  }

  get listeners(): number {
    return this.#streams.size;
  }

  async die(): Promise<void> {
    const closed = new Promise((resolve) => this.#server!.close(resolve));
    this.#server!.closeAllConnections();
    await closed;
  }
}

let folder: string;
let control: Control;
let warnings: object[];
const followers: RoutingFollower[] = [];
const follower = (options: { token?: string; controlUrls?: string[] } = {}) => {
  const made = new RoutingFollower({
    patienceMs: 0,
    controlUrls: [`http://127.0.0.1:${control.port}`],
    token,
    file: join(folder, 'routing', 'spec.json'),
    log: { warn: (line) => void warnings.push(line) },
    ...options,
  });
  followers.push(made);
  return made;
};
const onDisk = async () => JSON.parse(await readFile(join(folder, 'routing', 'spec.json'), 'utf8')) as Routing;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'banyan-routing-'));
  control = new Control();
  warnings = [];
  await control.start();
});
afterEach(async () => {
  for (const each of followers.splice(0)) await each.stop();
  await control.die().catch(() => {});
  await rm(folder, { recursive: true });
});

it('takes each new state, tells of it, and keeps it on disk', async () => {
  control.first = state(3);
  const one = follower();
  const heard: number[] = [];
  one.onChange(({ revision }) => heard.push(revision));
  await one.start(LONG);
  expect(one.current()).toEqual(state(3));
  control.say(state(4));
  control.say(state(5));
  await eventually(() => one.current()?.revision === 5);
  expect(heard).toEqual([3, 4, 5]);
  await eventually(async () => (await onDisk()).revision === 5);
});

it('keeps the higher revision, whichever comes first', async () => {
  control.first = state(7);
  const one = follower();
  await one.start(LONG);
  control.say(state(6));
  control.say(state(8));
  await eventually(() => one.current()?.revision === 8);
  const heard: number[] = [];
  one.onChange(({ revision }) => heard.push(revision));
  control.say(state(7));
  control.say(state(9));
  await eventually(() => one.current()?.revision === 9);
  expect(heard).toEqual([9]);
});

it('starts from disk and goes on with it while the control plane is away, and follows it again when it is back', async () => {
  control.first = state(2);
  const before = follower();
  await before.start(LONG);
  await before.stop();
  await control.die();

  const one = follower();
  await one.start(200);
  expect(one.current()).toEqual(state(2));
  control.first = state(3);
  await control.start();
  await eventually(() => one.current()?.revision === 3);
  await control.die();
  expect(one.current()?.revision).toBe(3);
  control.first = state(4);
  await control.start();
  await eventually(() => one.current()?.revision === 4);
  // Being away is said once, not with every try.
  expect(warnings.length).toBeLessThan(6);
});

it.each<[string, unknown]>([
  ['no JSON', 'what?'],
  ['no routing', { revision: 9 }],
  ['a stage that there is not', { ...state(9), contexts: { orders: { stage: 'gone', owner: 'monolith', epoch: 1 } } }],
  ['too much to be one', 'x'.repeat(1_100_000)],
])('refuses %s: the last state holds', async (_, nonsense) => {
  control.first = state(1);
  const one = follower();
  await one.start(LONG);
  control.say(nonsense);
  await eventually(() => warnings.length > 0);
  expect(one.current()).toEqual(state(1));
  control.first = state(2);
  control.say(state(2));
  await eventually(() => one.current()?.revision === 2);
});

it('of several control planes it follows the one that acts, and the next one as soon as that is gone', async () => {
  const other = new Control();
  await other.start();
  const controlUrls = [other, control].map(({ port }) => `http://127.0.0.1:${port}`);
  other.standsBy = true;
  control.first = state(1);
  const one = follower({ controlUrls });
  await one.start(LONG);
  expect(one.current()).toEqual(state(1));
  other.standsBy = false;
  other.first = state(2);
  await control.die();
  await eventually(() => one.current()?.revision === 2);
  control.standsBy = true;
  await control.start();
  other.say(state(3));
  await eventually(() => one.current()?.revision === 3);
  await other.die();
});

it('starts from what the version before has kept, too', async () => {
  await control.die();
  await mkdir(join(folder, 'routing'));
  const single = { http: 'http://127.0.0.1:3000', rpc: { host: '127.0.0.1', port: 3001 } };
  const orders = { stage: 'live', owner: 'service', epoch: 2, holding: false, since: '2026-01-01T00:00:00.000Z' };
  const before = { revision: 7, monolith: single, contexts: { orders: { ...orders, service: single } } };
  await writeFile(join(folder, 'routing', 'spec.json'), JSON.stringify(before));
  const one = follower();
  await one.start();
  const { monolith } = state(7);
  expect(one.current()).toEqual({ ...state(7), contexts: { orders: { ...orders, service: monolith } } });
});

it('starts from nothing when what is on disk is broken', async () => {
  control.first = state(1);
  const before = follower();
  await before.start(LONG);
  await before.stop();
  await control.die();
  await writeFile(join(folder, 'routing', 'spec.json'), '{"revision":1,"mono');
  const one = follower();
  await one.start(50);
  expect(one.current()).toBeUndefined();
  await eventually(() => warnings.length > 1);
  expect(warnings).toMatchObject([{ msg: expect.stringContaining('not JSON') }, {}]);
});

it('does not get in with another token, and does not fail over it', async () => {
  control.first = state(1);
  const one = follower({ token: 'not it' });
  await one.start(100);
  await eventually(() => control.refused > 1);
  expect(one.current()).toBeUndefined();
});

it('a listener that throws keeps neither the state nor the other listeners from it', async () => {
  control.first = state(1);
  const one = follower();
  const heard: number[] = [];
  one.onChange(() => {
    throw new Error('no');
  });
  one.onChange(({ revision }) => heard.push(revision));
  await one.start(LONG);
  expect(heard).toEqual([1]);
});
