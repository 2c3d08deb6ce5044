import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AppsV1Api, ConfigurationOptions, RequestContext, V1Deployment } from '@kubernetes/client-node';
import type { Endpoints } from '@banyan/extraction';
import { reasonOf } from '@banyan/kernel';
import { type ProcessState, Runtime, type Wanted } from './runtime.js';

export interface KubernetesRuntimeOptions {
  namespace: string;
  /** Every context that may have a service and a bridge here. */
  contexts: readonly string[];
  /** Undefined: KUBECONFIG, `~/.kube/config`, or the service account of the pod, in this order. */
  kubeconfig?: string;
  /** How often the Deployments are looked at, in milliseconds: 1000 by default. */
  pollMs?: number;
  /** How long one call of the API may take: 5000 by default. */
  timeoutMs?: number;
  log?: (message: string) => void;
}

const roles = ['service', 'bridge'] as const;
type Role = (typeof roles)[number];

/** The ports that a service's pods listen on, and so its Kubernetes Service too. */
const HTTP_PORT = 3_000;
const RPC_PORT = 3_001;
const CHANGE = 'change';
/* Somebody else scales as well (an autoscaler, a person): read again and decide anew, a few times. */
const CONFLICTS = 5;
const SLOWEST_MS = 10_000;

/**
 * Services and bridges as Deployments `<context>-service` and `<context>-bridge`, which are there already: they are
 * scaled between none and one, never made or deleted. What is wanted is compared with what is, again and again. While
 * the API is away, the last known state holds.
 *
 * The settings of a wanted process are not used: a Deployment brings its own.
 */
export class KubernetesRuntime extends Runtime {
  readonly #events = new EventEmitter();
  readonly #running = new AbortController();
  #wake = new AbortController();
  #api: AppsV1Api | undefined;
  #options: () => ConfigurationOptions = () => ({});
  #wanted: ReadonlySet<string> | undefined;
  #deployments: ReadonlyMap<string, V1Deployment> | undefined;
  /** By Deployment: why it could not be scaled. */
  #refusals = new Map<string, string>();
  #away: string | undefined;
  #told = '';
  #looping: Promise<void> | undefined;

  constructor(private readonly options: KubernetesRuntimeOptions) {
    super();
    this.#events.setMaxListeners(0);
  }

  /** Throws when there is no cluster to talk to; an API that does not answer just now is waited for. */
  async start(): Promise<void> {
    // Its load takes 650 ms of CPU and 90 MB, so only who runs on Kubernetes pays for it.
    const { AppsV1Api, KubeConfig, Observable } = await import('@kubernetes/client-node');
    const config = new KubeConfig();
    if (this.options.kubeconfig) config.loadFromFile(this.options.kubeconfig);
    else config.loadFromDefault();
    if (!config.getCurrentCluster())
      throw new Error('No Kubernetes cluster is configured: set KUBECONFIG, or run inside of the cluster');
    this.#api = config.makeApiClient(AppsV1Api);
    const limited = (context: RequestContext) => {
      context.setSignal(AbortSignal.any([this.#running.signal, AbortSignal.timeout(this.options.timeoutMs ?? 5_000)]));
      return new Observable(Promise.resolve(context));
    };
    const middleware = { pre: limited, post: (answer: never) => new Observable(Promise.resolve(answer)) };
    this.#options = () => ({ middleware: [middleware], middlewareMergeStrategy: 'append' });
    await this.#look();
    this.#looping = this.#loop();
  }

  /** Whatever runs goes on running. */
  async stop(): Promise<void> {
    this.#running.abort();
    this.#wake.abort();
    await this.#looping;
  }

  want(list: readonly Wanted[]): void {
    this.#wanted = new Set(list.map(({ role, context }) => nameOf(role, context)));
    this.#wake.abort();
  }

  letGo(): void {
    this.#wanted = undefined;
  }

  onChange(fn: () => void): () => void {
    this.#events.on(CHANGE, fn);
    return () => void this.#events.off(CHANGE, fn);
  }

  observe(): readonly ProcessState[] {
    return this.options.contexts.flatMap((context) =>
      roles.flatMap((role) => {
        const state = this.#stateOf(role, context);
        return state ? [state] : [];
      }),
    );
  }

  /** Undefined: it is neither wanted nor there. */
  #stateOf(role: Role, context: string): ProcessState | undefined {
    const name = nameOf(role, context);
    const deployment = this.#deployments?.get(name);
    const wanted = this.#wanted?.has(name) ?? false;
    // Before the first look nothing is known to be gone: its data must not be taken away under a running pod.
    if (!wanted && this.#deployments && !mayRun(deployment)) return undefined;
    const ready = deployment !== undefined && isReady(deployment);
    const missing =
      wanted && this.#deployments && !deployment
        ? `There is no Deployment ${name} in the namespace ${this.options.namespace}: apply the manifest of ${name}`
        : undefined;
    const error = this.#away ?? missing ?? this.#refusals.get(name) ?? (deployment && failureOf(deployment));
    return {
      role,
      context,
      ready,
      ...(error !== undefined && { error }),
      ...(role === 'service' && { endpoints: this.#endpoints(name) }),
    };
  }

  #endpoints(service: string): Endpoints {
    const host = `${service}.${this.options.namespace}.svc`;
    return { http: [`http://${host}:${HTTP_PORT}`], rpc: [{ host, port: RPC_PORT }] };
  }

  async #loop(): Promise<void> {
    const { signal } = this.#running;
    for (let failures = 0; !signal.aborted;) {
      const pollMs = this.options.pollMs ?? 1_000;
      const pause = Math.min(pollMs * 2 ** Math.min(failures, 10), Math.max(pollMs, SLOWEST_MS));
      await sleep(pause, undefined, { signal: this.#wake.signal, ref: false }).catch(() => {});
      if (signal.aborted) return;
      this.#wake = new AbortController();
      failures = (await this.#look()) ? 0 : failures + 1;
    }
  }

  /** Compares and scales once. False: the API did not answer. */
  async #look(): Promise<boolean> {
    try {
      this.#deployments = await this.#list();
      if (this.#away) this.options.log?.('The Kubernetes API answers again');
      this.#away = undefined;
      await this.#scaleAll(this.#deployments);
    } catch (error) {
      if (this.#running.signal.aborted) return false;
      const away = `The Kubernetes API ${this.#reasonOf(error)}; what is told here was last known`;
      if (away !== this.#away) this.options.log?.(away);
      this.#away = away;
    }
    const told = JSON.stringify(this.observe());
    if (told !== this.#told) this.#events.emit(CHANGE);
    this.#told = told;
    return this.#away === undefined;
  }

  async #list(): Promise<Map<string, V1Deployment>> {
    const { items } = await this.#calls().listNamespacedDeployment(
      { namespace: this.options.namespace },
      this.#options(),
    );
    return new Map(items.map((each) => [each.metadata?.name ?? '', each]));
  }

  async #scaleAll(deployments: ReadonlyMap<string, V1Deployment>): Promise<void> {
    // Before anybody has said what is wanted, nothing is changed: the control plane may just have been restarted.
    if (!this.#wanted) return;
    const refusals = new Map<string, string>();
    for (const context of this.options.contexts)
      for (const role of roles) {
        const name = nameOf(role, context);
        const deployment = deployments.get(name);
        const replicas = deployment?.spec?.replicas ?? 1;
        const wanted = replicasFor(role, this.#wanted.has(name), replicas);
        if (!deployment || wanted === replicas) continue;
        try {
          await this.#scale(role, name);
        } catch (error) {
          if (this.#running.signal.aborted) return;
          const refusal = `The Deployment ${name} cannot be scaled to ${wanted}: the Kubernetes API ${this.#reasonOf(error)}`;
          if (this.#refusals.get(name) !== refusal) this.options.log?.(refusal);
          refusals.set(name, refusal);
        }
      }
    this.#refusals = refusals;
  }

  /** Compare-and-set on the version of the scale: somebody else's change in between is looked at, not overwritten. */
  async #scale(role: Role, name: string): Promise<void> {
    const where = { name, namespace: this.options.namespace };
    for (let conflicts = 0; ; conflicts++) {
      const scale = await this.#calls().readNamespacedDeploymentScale(where, this.#options());
      const now = scale.spec?.replicas ?? 0;
      const replicas = replicasFor(role, this.#wanted?.has(name) ?? false, now);
      if (replicas === now) return;
      try {
        const body = { ...scale, spec: { replicas } };
        await this.#calls().replaceNamespacedDeploymentScale({ ...where, body }, this.#options());
        return;
      } catch (error) {
        if (codeOf(error) !== 409 || conflicts >= CONFLICTS) throw error;
      }
    }
  }

  #calls(): AppsV1Api {
    if (!this.#api) throw new Error('The runtime has not been started');
    return this.#api;
  }

  #reasonOf(error: unknown): string {
    const { namespace } = this.options;
    const code = codeOf(error);
    if (code === 401) return 'does not accept the credentials (401): check the kubeconfig or the service account';
    if (code === 403)
      return `does not allow it (403): the account needs list on deployments, and get and update on deployments/scale, in ${namespace}`;
    if (code === 404) return `does not know it (404): is ${namespace} the right namespace?`;
    if (code === 409) return 'has it changed by somebody else again and again (409)';
    if (code !== undefined) return `failed (${code})`;
    if (error instanceof Error && error.name === 'TimeoutError') return 'takes too long';
    const cause = error instanceof Error ? (error.cause as { code?: string } | undefined) : undefined;
    return `does not answer (${cause?.code ?? reasonOf(error)})`;
  }
}

const nameOf = (role: Role, context: string): string => `${context}-${role}`;

/** A service may be scaled further by others. A bridge may not: a replication slot has one reader. */
function replicasFor(role: Role, wanted: boolean, now: number): number {
  if (!wanted) return 0;
  return role === 'bridge' ? 1 : Math.max(1, now);
}

/** Of what is asked for now: figures of an older generation tell of pods that are on their way out. */
function isReady({ metadata, spec, status }: V1Deployment): boolean {
  return (
    (spec?.replicas ?? 1) > 0 &&
    (status?.observedGeneration ?? 0) >= (metadata?.generation ?? 0) &&
    (status?.readyReplicas ?? 0) > 0
  );
}

/** Is there a pod, on its way in or out? */
const mayRun = (deployment: V1Deployment | undefined): boolean =>
  deployment !== undefined &&
  (deployment.spec?.replicas ?? 1) +
    (deployment.status?.replicas ?? 0) +
    (deployment.status?.terminatingReplicas ?? 0) >
    0;

function failureOf({ status }: V1Deployment): string | undefined {
  const failed = status?.conditions?.find(
    ({ type, status }) =>
      (type === 'ReplicaFailure' && status === 'True') || (type === 'Progressing' && status === 'False'),
  );
  return failed && `${failed.reason ?? failed.type}: ${failed.message ?? 'no reason is given'}`;
}

/** The HTTP status; a time limit (a DOMException) has a small number of its own. */
function codeOf(error: unknown): number | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'number' && code >= 300 ? code : undefined;
}
