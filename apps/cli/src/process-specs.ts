import { type Config, keptSecret } from '@banyan/platform/config';
import { join } from 'node:path';
import type { ProcessSpec } from './managed-process.js';
import type { Ports } from './ports.js';
import type { Role } from './runtime-file.js';

/** The workspace: this file is apps/cli/dist/process-specs.js in it. */
const workspace = join(import.meta.dirname, '../../..');
const LOCAL = '127.0.0.1';

export const migrationsDir = join(workspace, 'migrations');

interface Assigned {
  proxy: number[];
  control: number[];
  /** HTTP, probes, RPC. */
  monolith: number[];
  simulator: number[];
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
      proxy: addressOf(config.http.host, ports.proxy[0]),
      monolith: addressOf(LOCAL, ports.monolith[0]),
      control: addressOf(config.extraction.controlHost, ports.control[0]),
    };
    this.secrets = sharedSecrets(config);
  }

  /**
   * The addresses that people and their tools know, PORT and CONTROL_PORT, must be had. Any other busy one is replaced:
   * runtime.json says where everything is. Throws PORT_IN_USE.
   */
  static async assign(config: Config, ports: Ports): Promise<ProcessSpecs> {
    const { http, extraction, rpc, psp } = config;
    const open = await ports.claim('PORT', http.host, http.port);
    const control = await ports.claim('CONTROL_PORT', extraction.controlHost, extraction.controlPort);
    const monolith = await ports.prefer(LOCAL, extraction.monolithPort);
    const internal = await ports.prefer(LOCAL, http.internalPort);
    const calls = await ports.prefer(LOCAL, rpc.port);
    const simulator = await ports.prefer(psp.host, psp.port);
    const any = () => ports.prefer(LOCAL, 0);
    return new ProcessSpecs(config, {
      proxy: [open, await any()],
      control: [control, await any()],
      monolith: [monolith, internal, calls],
      simulator: [simulator],
    });
  }

  /** It acts for nobody's provider when PSP_URL names a real one: then it is not started. */
  simulator(): ProcessSpec {
    const { ports } = this;
    return this.spec('psp-simulator', ports.simulator, {
      PSP_PORT: String(ports.simulator[0]),
      PSP_WEBHOOK_URL: `${this.urls.proxy}/v1/webhooks/psp`,
    });
  }

  controlPlane(databaseUrl: string): ProcessSpec {
    const { config, ports } = this;
    return this.spec('control-plane', ports.control, {
      CONTROL_HOST: config.extraction.controlHost,
      CONTROL_PORT: String(ports.control[0]),
      INTERNAL_PORT: String(ports.control[1]),
      DATABASE_URL: databaseUrl,
      BANYAN_OPERATOR_TOKEN: operatorToken(config),
    });
  }

  monolith(databaseUrl: string): ProcessSpec {
    return this.spec('monolith', this.ports.monolith, {
      ...this.behindProxy(this.ports.monolith),
      DATABASE_URL: databaseUrl,
      // Decided here: the child always has a DATABASE_URL and cannot tell whose.
      BANYAN_SEED: this.config.seed ? 'on' : 'off',
    });
  }

  proxy(): ProcessSpec {
    const { ports, config } = this;
    return this.spec('proxy', ports.proxy, {
      HOST: config.http.host,
      PORT: String(ports.proxy[0]),
      INTERNAL_PORT: String(ports.proxy[1]),
    });
  }

  service(context: string, settings: Record<string, string>, ports: number[]): ProcessSpec {
    const spec = this.spec('service', ports, { ...this.behindProxy(ports), ...settings }, context);
    return { ...spec, main: join(workspace, 'apps', `${context}-service`, 'dist/main.js') };
  }

  bridge(context: string, settings: Record<string, string>, ports: number[]): ProcessSpec {
    return this.spec('bridge', ports, { INTERNAL_PORT: String(ports[0]), ...settings }, context);
  }

  private spec(role: Role, ports: number[], env: Record<string, string>, context?: string): ProcessSpec {
    const { stateDir } = this.config;
    const folder = role === 'proxy' ? 'proxy' : join('apps', role);
    return {
      role,
      context,
      main: join(workspace, folder, 'dist/main.js'),
      ports,
      log: join(stateDir, 'logs', `${context ? `${context}-` : ''}${role}.log`),
      env: {
        BANYAN_STATE_DIR: stateDir,
        NODE_COMPILE_CACHE: join(stateDir, 'compile-cache'),
        NO_COLOR: '1',
        BANYAN_SEED: 'off',
        INTERNAL_HOST: LOCAL,
        CONTROL_URL: this.urls.control,
        // Where the monolith is, for those who have not heard from the control plane yet.
        MONOLITH_PORT: String(this.ports.monolith[0]),
        MONOLITH_RPC_HOST: LOCAL,
        MONOLITH_RPC_PORT: String(this.ports.monolith[2]),
        PSP_URL: this.config.payments.pspUrl ?? addressOf(LOCAL, this.ports.simulator[0]),
        ...this.secrets,
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
