import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { natsPassword, natsUser } from '@banyan/messaging/nats-config';
import { type Config, keptSecret } from '@banyan/platform/config';
import type { Role } from './runtime-file.js';

const KEPT = 'nats-secret';

/** What the passwords of all users derive from; made on first use. */
export const natsSecret = ({ natsSecret, stateDir }: Config): string => natsSecret ?? keptSecret(stateDir, KEPT);

/**
 * The settings with which a process of ours signs on to NATS: its own user where `banyan nats-config` has made users and
 * nobody has named another one. None of them learns what the other passwords derive from.
 */
export function natsSettings(config: Config, role: Role, context?: string): Record<string, string> {
  const { nats, stateDir } = config;
  const user = userOf(role, context);
  const known = config.natsSecret !== undefined || existsSync(join(stateDir, KEPT));
  const named = nats?.user !== undefined || nats?.servers.some((server) => new URL(server).username !== '');
  // Empty is unset: a child sees what we see otherwise.
  if (!nats || !user || !known || named) return { NATS_SECRET: '' };
  return { NATS_SECRET: '', NATS_USER: user, NATS_PASSWORD: natsPassword(natsSecret(config), user) };
}

function userOf(role: Role, context: string | undefined): string | undefined {
  if (role === 'monolith') return natsUser.monolith;
  if (role === 'control-plane') return natsUser.controlPlane;
  if (role === 'service' && context) return natsUser.service(context);
  if (role === 'bridge' && context) return natsUser.bridge(context);
  return undefined;
}
