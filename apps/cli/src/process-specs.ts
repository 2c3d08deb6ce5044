import { type Config, keptSecret } from '@banyan/platform/config';
import { join } from 'node:path';
import type { ProcessSpec } from './managed-process.js';
import { natsSettings } from './nats-users.js';
import type { Ports } from './ports.js';
import type { Role } from './runtime-file.js';

/** The workspace: this file is apps/cli/dist/process-specs.js in it. */
const workspace = join(import.meta.dirname, '../../..');
const LOCAL = '127.0.0.1';

export const migrationsDir = join(workspace, 'migrations');

/** The ports of each instance. */
interface Assigned {
  proxies: number[][];
  controlPlanes: number[][];
  /** HTTP, probes, RPC. */
  monoliths: number[][];
  simulator: number[];
}

/** Which one of several is meant: 1 is the one whose addresses people know. */
interface Which {
  context?: string;
  instance?: number;
}

/** Which file each process runs, on which ports, with which settings. */
export class ProcessSpecs {
  readonly urls: { proxy: string; monolith: string; control: string };
  private readonly secrets: Record<string, string>;

  private constructor(
    private readonly config: Config,
    private readonly ports: Assigned,
  ) {
    this.urls = {
      proxy: addressOf(config.http.host, ports.proxies[0]![0]),
      monolith: addressOf(LOCAL, ports.monoliths[0]![0]),
      control: addressOf(config.extraction.controlHost, ports.controlPlanes[0]![0]),
    };
    this.secrets = sharedSecrets(config);
  }

  /**
   * The addresses that people and their tools know, PORT and CONTROL_PORT, must be had. Any other busy one is replaced:
   * runtime.json says where everything is. A second proxy gets the port after the first one's. Throws PORT_IN_USE.
   */
  static async assign(config: Config, ports: Ports): Promise<ProcessSpecs> {
    const { http, extraction, rpc, psp, instances } = config;
    const open = await ports.claim('PORT', http.host, http.port);
    const control = await ports.claim('CONTROL_PORT', extraction.controlHost, extraction.controlPort);
    const monolith = await ports.prefer(LOCAL, extraction.monolithPort);
    const internal = await ports.prefer(LOCAL, http.internalPort);
    const calls = await ports.prefer(LOCAL, rpc.port);
    const simulator = await ports.prefer(psp.host, psp.port);
    const any = () => ports.prefer(LOCAL, 0);
    const assigned: Assigned = {
      proxies: [[open, await any()]],
      controlPlanes: [[control, await any()]],
      monoliths: [[monolith, internal, calls]],
      simulator: [simulator],
    };
    const { proxies, controlPlanes, monoliths } = assigned;
    while (proxies.length < instances.proxies)
      proxies.push([await ports.prefer(http.host, http.port && http.port + proxies.length), await any()]);
    while (controlPlanes.length < instances.controlPlanes)
      controlPlanes.push([await ports.prefer(extraction.controlHost, 0), await any()]);
    while (monoliths.length < instances.monoliths) monoliths.push([await any(), await any(), await any()]);
    return new ProcessSpecs(config, assigned);
  }

  /** It acts for nobody's provider when PSP_URL names a real one: then it is not started. */
  simulator(): ProcessSpec {
    const { ports } = this;
    return this.spec(
      'psp-simulator',
      ports.simulator,
      {},
      {
        PSP_PORT: String(ports.simulator[0]),
        PSP_WEBHOOK_URL: `${this.urls.proxy}/v1/webhooks/psp`,
      },
    );
  }

  controlPlanes(databaseUrl: string): ProcessSpec[] {
    const { config, ports } = this;
    return ports.controlPlanes.map((each, at) =>
      this.spec(
        'control-plane',
        each,
        { instance: at + 1 },
        {
          CONTROL_HOST: config.extraction.controlHost,
          CONTROL_PORT: String(each[0]),
          INTERNAL_PORT: String(each[1]),
          DATABASE_URL: databaseUrl,
          BANYAN_OPERATOR_TOKEN: operatorToken(config),
        },
      ),
    );
  }

  monoliths(databaseUrl: string): ProcessSpec[] {
    return this.ports.monoliths.map((each, at) =>
      this.spec(
        'monolith',
        each,
        { instance: at + 1 },
        {
          ...this.behindProxy(each),
          DATABASE_URL: databaseUrl,
          // Decided here: the child always has a DATABASE_URL and cannot tell whose. One of them is enough.
          BANYAN_SEED: this.config.seed && at === 0 ? 'on' : 'off',
        },
      ),
    );
  }

  proxies(): ProcessSpec[] {
    return this.ports.proxies.map((each, at) =>
      this.spec(
        'proxy',
        each,
        { instance: at + 1 },
        {
          HOST: this.config.http.host,
          PORT: String(each[0]),
          INTERNAL_PORT: String(each[1]),
        },
      ),
    );
  }

  service(which: Which & { context: string }, settings: Record<string, string>, ports: number[]): ProcessSpec {
    const spec = this.spec('service', ports, which, { ...this.behindProxy(ports), ...settings });
    return { ...spec, main: join(workspace, 'apps', `${which.context}-service`, 'dist/main.js') };
  }

  bridge(which: Which & { context: string }, settings: Record<string, string>, ports: number[]): ProcessSpec {
    return this.spec('bridge', ports, which, { INTERNAL_PORT: String(ports[0]), ...settings });
  }

  private spec(
    role: Role,
    ports: number[],
    { context, instance = 1 }: Which,
    env: Record<string, string>,
  ): ProcessSpec {
    const { stateDir } = this.config;
    const folder = role === 'proxy' ? 'proxy' : join('apps', role);
    const further = instance > 1 ? instance : undefined;
    const name = [context, role, further].filter((part) => part !== undefined).join('-');
    const { controlPlanes, monoliths } = this.ports;
    return {
      role,
      context,
      ...(further && { instance: further }),
      main: join(workspace, folder, 'dist/main.js'),
      ports,
      log: join(stateDir, 'logs', `${name}.log`),
      env: {
        BANYAN_STATE_DIR: stateDir,
        NODE_COMPILE_CACHE: join(stateDir, 'compile-cache'),
        NO_COLOR: '1',
        BANYAN_SEED: 'off',
        INTERNAL_HOST: LOCAL,
        CONTROL_URL: controlPlanes.map(([port]) => addressOf(this.config.extraction.controlHost, port)).join(),
        // Where the monolith is, for those who have not heard from the control plane yet.
        MONOLITH_URLS: monoliths.map(([port]) => addressOf(LOCAL, port)).join(),
        MONOLITH_RPC_ADDRESSES: monoliths.map(([, , port]) => `${LOCAL}:${port}`).join(),
        PSP_URL: this.config.payments.pspUrl ?? addressOf(LOCAL, this.ports.simulator[0]),
        ...this.secrets,
        ...natsSettings(this.config, role, context),
        ...env,
      },
    };
  }

  /** An app that only the proxy and other apps of this machine talk to. */
  private behindProxy([http, internal, rpc]: number[]): Record<string, string> {
    return {
      HOST: LOCAL,
      PORT: String(http),
      INTERNAL_PORT: String(internal),
      RPC_HOST: LOCAL,
      RPC_PORT: String(rpc),
      BANYAN_TRUSTED_PROXIES: LOCAL,
    };
  }
}

function addressOf(host: string, port: number | undefined): string {
  return `http://${['0.0.0.0', '::'].includes(host) ? LOCAL : host}:${port}`;
}

/** All processes must agree on these; each would make and keep the same ones by itself, if it had this state folder. */
function sharedSecrets({ stateDir, payments, shipping, extraction, auth }: Config): Record<string, string> {
  return {
    BANYAN_SECRET: auth.secret ?? keptSecret(stateDir, 'signing-secret'),
    BANYAN_CLIENT_TOKEN: extraction.clientToken ?? keptSecret(stateDir, 'client-token'),
    PSP_WEBHOOK_SECRET: payments.pspWebhookSecret ?? keptSecret(stateDir, 'psp-webhook-secret'),
    CARRIER_WEBHOOK_SECRET: shipping.carrierWebhookSecret ?? keptSecret(stateDir, 'carrier-webhook-secret'),
  };
}

const operatorToken = ({ stateDir, extraction }: Config): string =>
  extraction.operatorToken ?? keptSecret(stateDir, 'operator-token');
