import { join } from 'node:path';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type { Side } from '@banyan/kernel';
import type { Peers } from '@banyan/messaging';
import type { Nats } from '@banyan/messaging/nats';
import { NatsPeers } from '@banyan/messaging/nats-rpc';
import { TcpPeers } from '@banyan/messaging/tcp';
import { rpcToken } from '@banyan/platform/auth';
import { type Config, keptSecret } from '@banyan/platform/config';
import { type Canary, canaryFlagsFrom } from '../flags/index.js';
import { ExtractionPlacement } from '../placement.js';
import { RoutingFollower } from '../routing-follower.js';

/** How long a process waits at its start for the control plane, which may not be there: then what is on disk holds, ms. */
const PATIENCE = 1_000;

/** What a process needs to know where every context is: the routing state, the canary flags, the ways to the others. */
@Injectable()
export class Router implements OnApplicationShutdown {
  readonly placement: ExtractionPlacement;
  readonly #follower: RoutingFollower;
  readonly #canary: Canary;
  readonly #peers: Peers;

  /** `context`: of a service, the one that it serves. */
  constructor(config: Config, controlUrls: readonly string[], side: Side, context?: string, nats?: Nats) {
    const { stateDir, extraction, transports } = config;
    const role = context ? `${context}-service` : 'monolith';
    const token = extraction.clientToken ?? keptSecret(stateDir, 'client-token');
    const file = join(stateDir, 'routing', `${role}.json`);
    this.#follower = new RoutingFollower({ controlUrls, token, file });
    this.#canary = canaryFlagsFrom(config, role);
    this.#peers =
      nats && transports.rpc === 'nats' ? new NatsPeers(nats, rpcToken(config)) : new TcpPeers(rpcToken(config));
    this.placement = new ExtractionPlacement({
      side,
      context,
      routing: this.#follower,
      canary: this.#canary,
      transports: this.#peers,
      monolith: extraction.monolith.rpc,
    });
  }

  async start(): Promise<void> {
    await Promise.all([this.#follower.start(PATIENCE), this.#canary.start()]);
  }

  async onApplicationShutdown(): Promise<void> {
    this.#canary.stop();
    await this.#peers.close();
    await this.#follower.stop();
  }
}
