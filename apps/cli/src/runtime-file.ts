import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export type Role = 'proxy' | 'monolith' | 'control-plane' | 'bridge' | 'service' | 'psp-simulator' | 'postgres';

export interface RunningProcess {
  role: Role;
  context?: string;
  pid: number;
  /** The public one first, then the one for probes and metrics. */
  ports: number[];
}

/** `.banyan/runtime.json`: what runs now. */
export interface Runtime {
  version: 1;
  processes: RunningProcess[];
  /** `proxy` is the address for clients, whoever listens there. */
  urls: { proxy?: string; monolith?: string; control?: string };
  databases: Record<string, { monolith?: string; service?: string }>;
}

/** Every control plane that runs; the one that people know comes first. */
export function controlUrlsOf(runtime: Runtime | undefined): string[] {
  const known = runtime?.urls.control;
  if (!runtime || known === undefined) return [];
  const urls = runtime.processes.flatMap(({ role, ports: [port] }) => {
    if (role !== 'control-plane' || port === undefined) return [];
    const url = new URL(known);
    url.port = String(port);
    return [url.origin];
  });
  return [...new Set([known, ...urls])];
}

const pathIn = (stateDir: string) => join(stateDir, 'runtime.json');

/** Writes a new file and renames it over the old one: a reader sees the one or the other. Mode 0600: it holds passwords. */
export async function writeRuntime(stateDir: string, runtime: Runtime): Promise<void> {
  const draft = `${pathIn(stateDir)}.new`;
  await rm(draft, { force: true });
  await writeFile(draft, `${JSON.stringify(runtime, null, 2)}\n`, { mode: 0o600 });
  await rename(draft, pathIn(stateDir));
}

export async function readRuntime(stateDir: string): Promise<Runtime | undefined> {
  const text = await readFile(pathIn(stateDir), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as Runtime);
}

export async function removeRuntime(stateDir: string): Promise<void> {
  await rm(pathIn(stateDir), { force: true });
}
