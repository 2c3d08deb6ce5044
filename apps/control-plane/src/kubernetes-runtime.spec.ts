import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually, freePort } from '@banyan/testing';
import { afterEach, describe, expect, it } from 'vitest';
import { KubernetesRuntime } from './kubernetes-runtime.js';
import type { Wanted } from './runtime.js';

const NAMESPACE = 'banyan';
const TOKEN = 'the-service-account';
/** How late a slow API answers, ms. */
const SLOW_MS = 1_000;

interface Deployment {
  replicas: number;
  version: number;
  generation: number;
  /** What the pretended controller has got to. */
  observed: number;
  pods: number;
  readyPods: number;
  conditions: { type: string; status: string; reason?: string; message?: string }[];
}

/** Speaks the paths of the real API server, as far as Deployments and their scale go. */
class FakeApi {
  readonly deployments = new Map<string, Deployment>();
  readonly calls: string[] = [];
  /** Scales that fail with a conflict before one succeeds. */
  conflicts = 0;
  answer: 'fine' | 'slow' | number = 'fine';
  refuseScale = false;
  #server: Server | undefined;
  port = 0;

  async start(): Promise<void> {
    this.#server = createServer((request, response) => void this.#handle(request, response));
    // Not one of the system's own: nobody else may have it while this one is gone.
    this.port ||= await freePort();
    this.#server.listen(this.port, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  async stop(): Promise<void> {
    if (!this.#server?.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  put(name: string, replicas = 0): Deployment {
    const deployment = { replicas, version: 1, generation: 1, observed: 1, pods: 0, readyPods: 0, conditions: [] };
    this.deployments.set(name, deployment);
    return deployment;
  }

  /** As the controller and the kubelet do after a while. */
  settle(): void {
    for (const each of this.deployments.values())
      Object.assign(each, { observed: each.generation, pods: each.replicas, readyPods: each.replicas });
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url as string).split('?')[0] as string;
    this.calls.push(`${request.method} ${path}`);
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const send = (status: number, body: object) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    const refuse = (code: number, reason: string) =>
      send(code, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message: reason, reason, code });
    // Late and not never: a call that was under way before gets its answer.
    if (this.answer === 'slow') await sleep(SLOW_MS);
    if (typeof this.answer === 'number') return void refuse(this.answer, 'Failure');
    if (request.headers.authorization !== `Bearer ${TOKEN}`) return void refuse(401, 'Unauthorized');

    const base = `/apis/apps/v1/namespaces/${NAMESPACE}/deployments`;
    if (request.method === 'GET' && path === base) {
      const items = [...this.deployments].map(([name, each]) => this.#deployment(name, each));
      return void send(200, { kind: 'DeploymentList', apiVersion: 'apps/v1', metadata: {}, items });
    }
    const name = path.startsWith(`${base}/`) ? path.slice(base.length + 1).replace(/\/scale$/, '') : '';
    const deployment = this.deployments.get(name);
    if (!deployment || !path.endsWith('/scale')) return void refuse(404, 'NotFound');
    if (this.refuseScale) return void refuse(403, 'Forbidden');
    if (request.method === 'PUT') {
      const body = JSON.parse(Buffer.concat(chunks).toString()) as ReturnType<FakeApi['scale']>;
      if (this.conflicts > 0) {
        this.conflicts--;
        deployment.version++;
        return void refuse(409, 'Conflict');
      }
      if (body.metadata.resourceVersion !== String(deployment.version)) return void refuse(409, 'Conflict');
      deployment.version++;
      deployment.generation++;
      deployment.replicas = body.spec.replicas;
    }
    send(200, this.scale(name, deployment));
  }

  private scale(name: string, { replicas, version }: Deployment) {
    return {
      kind: 'Scale',
      apiVersion: 'autoscaling/v1',
      metadata: { name, namespace: NAMESPACE, resourceVersion: String(version) },
      spec: { replicas },
      status: { replicas },
    };
  }

  #deployment(name: string, each: Deployment) {
    return {
      metadata: { name, namespace: NAMESPACE, generation: each.generation, resourceVersion: String(each.version) },
      spec: { replicas: each.replicas, selector: {}, template: {} },
      status: {
        observedGeneration: each.observed,
        replicas: each.pods,
        readyReplicas: each.readyPods,
        conditions: each.conditions,
      },
    };
  }
}

const wanted = (...names: string[]): Wanted[] =>
  names.map((name) => {
    const [context, role] = name.split('-') as [string, 'service' | 'bridge'];
    return { context, role, settings: {} };
  });

describe('the Kubernetes runtime', () => {
  const ends: (() => unknown)[] = [];
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  async function cluster(...deployments: string[]) {
    const api = new FakeApi();
    await api.start();
    ends.push(() => api.stop());
    for (const name of deployments) api.put(name);
    return api;
  }

  async function runtimeOn(api: FakeApi, { token = TOKEN, namespace = NAMESPACE } = {}) {
    const folder = mkdtempSync(join(tmpdir(), 'banyan-kubernetes-'));
    ends.push(() => rmSync(folder, { recursive: true }));
    const kubeconfig = join(folder, 'config');
    writeFileSync(
      kubeconfig,
      JSON.stringify({
        clusters: [
          { name: 'fake', cluster: { server: `http://127.0.0.1:${api.port}`, 'insecure-skip-tls-verify': true } },
        ],
        users: [{ name: 'banyan', user: { token } }],
        contexts: [{ name: 'fake', context: { cluster: 'fake', user: 'banyan' } }],
        'current-context': 'fake',
      }),
    );
    const told: string[] = [];
    const runtime = new KubernetesRuntime({
      namespace,
      contexts: ['inventory', 'orders'],
      kubeconfig,
      pollMs: 20,
      // What is not slow on purpose may take as long as it likes.
      get timeoutMs() {
        return api.answer === 'slow' ? SLOW_MS / 10 : 60_000;
      },
      log: (message) => told.push(message),
    });
    await runtime.start();
    ends.push(() => runtime.stop());
    const of = (name: string) => runtime.observe().find(({ context, role }) => `${context}-${role}` === name);
    return { runtime, told, of };
  }

  const all = ['inventory-service', 'inventory-bridge', 'orders-service', 'orders-bridge'];

  it('scales what is wanted to one, and it is ready when its pods are', async () => {
    const api = await cluster(...all);
    const { runtime, of } = await runtimeOn(api);
    expect(runtime.observe()).toEqual([]);
    let changes = 0;
    runtime.onChange(() => changes++);
    runtime.want(wanted('inventory-service', 'inventory-bridge'));
    await eventually(() => [...api.deployments.values()].map(({ replicas }) => replicas).join() === '1,1,0,0');
    const host = 'inventory-service.banyan.svc';
    const endpoints = { http: [`http://${host}:3000`], rpc: [{ host, port: 3001 }] };
    expect(runtime.observe()).toEqual([
      { role: 'service', context: 'inventory', ready: false, endpoints },
      { role: 'bridge', context: 'inventory', ready: false },
    ]);
    const before = changes;
    api.settle();
    await eventually(() => of('inventory-service')?.ready && of('inventory-bridge')?.ready);
    expect(changes).toBeGreaterThan(before);
    expect(of('inventory-service')?.endpoints).toEqual(endpoints);
  });

  it('scales what is no longer wanted to none, and tells of it until its pods are gone', async () => {
    const api = await cluster(...all);
    const { runtime, of } = await runtimeOn(api);
    runtime.want(wanted('inventory-service', 'inventory-bridge'));
    await eventually(() => api.deployments.get('inventory-bridge')?.replicas === 1);
    api.settle();
    runtime.want(wanted('inventory-service'));
    await eventually(() => api.deployments.get('inventory-bridge')?.replicas === 0);
    await eventually(() => of('inventory-bridge')?.ready === false);
    api.settle();
    await eventually(() => of('inventory-bridge') === undefined);
    expect(api.deployments.get('inventory-service')?.replicas).toBe(1);
  });

  it('changes nothing before it was told what is wanted, and nothing when it stops', async () => {
    const api = await cluster();
    api.put('inventory-service', 1);
    api.settle();
    const { runtime, of } = await runtimeOn(api);
    await eventually(() => api.calls.length > 3);
    expect(of('inventory-service')).toMatchObject({ ready: true });
    await runtime.stop();
    expect(api.calls.every((call) => call.startsWith('GET'))).toBe(true);
    expect(api.deployments.get('inventory-service')?.replicas).toBe(1);
  });

  it('a service that others have scaled further stays so; a bridge has one pod, as a slot has one reader', async () => {
    const api = await cluster();
    api.put('inventory-service', 3);
    api.put('inventory-bridge', 3);
    const { runtime } = await runtimeOn(api);
    runtime.want(wanted('inventory-service', 'inventory-bridge'));
    await eventually(() => api.deployments.get('inventory-bridge')?.replicas === 1);
    expect(api.deployments.get('inventory-service')?.replicas).toBe(3);
  });

  it('what somebody scales down by hand is scaled up again', async () => {
    const api = await cluster(...all);
    const { runtime } = await runtimeOn(api);
    runtime.want(wanted('orders-service'));
    const deployment = api.deployments.get('orders-service') as Deployment;
    await eventually(() => deployment.replicas === 1);
    deployment.replicas = 0;
    await eventually(() => deployment.replicas === 1);
  });

  it('pods of an older generation do not count as ready', async () => {
    const api = await cluster();
    const deployment = api.put('inventory-service', 1);
    api.settle();
    const { runtime, of } = await runtimeOn(api);
    runtime.want(wanted('inventory-service'));
    await eventually(() => of('inventory-service')?.ready);
    deployment.generation++;
    await eventually(() => of('inventory-service')?.ready === false);
  });

  it('names a Deployment that is missing, and what to do; nothing is created', async () => {
    const api = await cluster('inventory-service');
    const { runtime, of } = await runtimeOn(api);
    runtime.want(wanted('inventory-service', 'inventory-bridge'));
    await eventually(() => api.deployments.get('inventory-service')?.replicas === 1);
    expect(of('inventory-bridge')).toEqual({
      role: 'bridge',
      context: 'inventory',
      ready: false,
      error: 'There is no Deployment inventory-bridge in the namespace banyan: apply the manifest of inventory-bridge',
    });
    expect(api.calls.filter((call) => /^(POST|PATCH|DELETE)/.test(call))).toEqual([]);
    api.put('inventory-bridge');
    await eventually(() => api.deployments.get('inventory-bridge')?.replicas === 1);
    expect(of('inventory-bridge')?.error).toBeUndefined();
  });

  it('says why pods do not come', async () => {
    const api = await cluster('inventory-service');
    const { runtime, of } = await runtimeOn(api);
    runtime.want(wanted('inventory-service'));
    (api.deployments.get('inventory-service') as Deployment).conditions.push({
      type: 'ReplicaFailure',
      status: 'True',
      reason: 'FailedCreate',
      message: 'exceeded quota',
    });
    await eventually(() => of('inventory-service')?.error === 'FailedCreate: exceeded quota');
  });

  it('a conflict is read again and retried; one that never ends is told', async () => {
    const api = await cluster(...all);
    const { runtime, of } = await runtimeOn(api);
    api.conflicts = 3;
    runtime.want(wanted('inventory-service'));
    await eventually(() => api.deployments.get('inventory-service')?.replicas === 1);
    api.conflicts = 1_000_000;
    runtime.want(wanted('inventory-service', 'orders-service'));
    await eventually(() => /orders-service cannot be scaled to 1: .*\(409\)/.test(of('orders-service')?.error ?? ''));
    api.conflicts = 0;
    await eventually(() => api.deployments.get('orders-service')?.replicas === 1);
    await eventually(() => of('orders-service')?.error === undefined);
  });

  it('an account that may not scale is told which rights it lacks', async () => {
    const api = await cluster(...all);
    api.refuseScale = true;
    const { runtime, of, told } = await runtimeOn(api);
    runtime.want(wanted('inventory-service'));
    await eventually(() => of('inventory-service')?.error?.includes('get and update on deployments/scale, in banyan'));
    expect(told.length).toBe(1);
  });

  it.each([
    ['fails (500)', 500, /failed \(500\)/],
    ['refuses the credentials (401)', 401, /does not accept the credentials \(401\)/],
    ['does not allow it (403)', 403, /needs list on deployments/],
    ['is slow', 'slow', /takes too long/],
    ['is gone', 'gone', /does not answer \(ECONNREFUSED\)/],
  ] as const)(
    'an API that %s: the last known state holds and it is told once; then it goes on',
    async (_, answer, words) => {
      const api = await cluster(...all);
      const { runtime, of, told } = await runtimeOn(api);
      runtime.want(wanted('inventory-service'));
      await eventually(() => api.deployments.get('inventory-service')?.replicas === 1);
      api.settle();
      await eventually(() => of('inventory-service')?.ready);
      if (answer === 'gone') await api.stop();
      else api.answer = answer;
      await eventually(() => words.test(of('inventory-service')?.error ?? ''));
      expect(of('inventory-service')?.ready).toBe(true);
      runtime.want(wanted('inventory-service', 'inventory-bridge'));
      if (answer === 'gone') await api.start();
      else api.answer = 'fine';
      await eventually(() => api.deployments.get('inventory-bridge')?.replicas === 1);
      expect(of('inventory-service')).not.toHaveProperty('error');
      expect(told.filter((each) => words.test(each)).length).toBeLessThanOrEqual(2);
    },
  );

  it('an API that has not answered yet: nothing is told to be gone', async () => {
    const api = await cluster();
    const { runtime } = await runtimeOn(api, { token: 'of somebody else' });
    expect(runtime.observe().map(({ role, context, ready }) => [context, role, ready])).toEqual([
      ['inventory', 'service', false],
      ['inventory', 'bridge', false],
      ['orders', 'service', false],
      ['orders', 'bridge', false],
    ]);
    expect(runtime.observe()[0]?.error).toMatch(/401/);
  });

  it('a namespace that is not there is told as such', async () => {
    const api = await cluster();
    const { runtime, of } = await runtimeOn(api, { namespace: 'elsewhere' });
    runtime.want(wanted('inventory-service'));
    expect(of('inventory-service')?.error).toMatch(/is elsewhere the right namespace\?/);
  });
});
