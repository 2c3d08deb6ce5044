import { once } from 'node:events';
import { type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ControlClient } from './control-client.js';
import { OPERATOR_TOKEN, ScriptedControlPlane } from './control-plane.spec-support.js';
import { type Runtime, controlUrlsOf } from './runtime-file.js';

describe('An operator with several control planes', () => {
  const acting = new ScriptedControlPlane('inventory');
  let standby: Server;
  let standbyUrl: string;
  const nobody = 'http://127.0.0.1:1';

  beforeEach(async () => {
    await acting.start();
    standby = createServer((_, response) =>
      response
        .writeHead(503, { 'content-type': 'application/problem+json' })
        .end(JSON.stringify({ status: 503, code: 'UNAVAILABLE', detail: 'This control plane stands by' })),
    ).listen(0, '127.0.0.1');
    await once(standby, 'listening');
    standbyUrl = `http://127.0.0.1:${(standby.address() as AddressInfo).port}`;
  });
  afterEach(async () => {
    standby.close();
    await acting.stop();
  });

  it('finds the one that acts, and stays with it', async () => {
    const client = new ControlClient([nobody, standbyUrl, acting.url], OPERATOR_TOKEN);
    expect(await client.contexts()).toHaveLength(1);
    expect(client.url).toBe(acting.url);
    expect(await client.freeze('inventory', { frozen: true })).toMatchObject({ frozen: true });
    const { value } = await client.stream(AbortSignal.timeout(30_000)).next();
    expect(value).toMatchObject({ context: 'inventory' });
  });

  it('is told that none acts, or that none is there: both pass', async () => {
    await expect(new ControlClient([nobody, standbyUrl], OPERATOR_TOKEN).contexts()).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringMatching(/^This control plane stands by\./),
    });
    await expect(new ControlClient([nobody, `${nobody}0`], OPERATOR_TOKEN).contexts()).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringContaining(`${nobody} or ${nobody}0`),
    });
  });

  it('finds them all in runtime.json', () => {
    const runtime: Runtime = {
      version: 1,
      processes: [
        { role: 'proxy', pid: 1, ports: [8080, 1] },
        { role: 'control-plane', pid: 2, ports: [8090, 2] },
        { role: 'control-plane', pid: 3, ports: [4711, 3] },
      ],
      urls: { control: 'http://127.0.0.1:8090' },
      databases: {},
    };
    expect(controlUrlsOf(runtime)).toEqual(['http://127.0.0.1:8090', 'http://127.0.0.1:4711']);
    expect(controlUrlsOf({ ...runtime, urls: {} })).toEqual([]);
    expect(controlUrlsOf(undefined)).toEqual([]);
  });
});
