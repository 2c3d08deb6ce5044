import type { Stage } from '@banyan/extraction';
import { gradualRollout } from '@banyan/extraction/flags';
import { DomainError } from '@banyan/kernel';
import { fail } from '@banyan/platform/http';
import { z } from 'zod';
import { strategyFor } from './reading.js';

export interface UnleashAdminOptions {
  /** Base of the API: `https://unleash.example/api/`. */
  url: string;
  token: string;
  project: string;
  environment: string;
}

const TIMEOUT_MS = 5_000;

const Features = z.looseObject({
  features: z.array(
    z.looseObject({
      name: z.string(),
      environments: z.array(z.looseObject({ name: z.string(), hasStrategies: z.boolean().default(false) })).default([]),
    }),
  ),
});
const Strategies = z.array(
  z.looseObject({
    id: z.string(),
    name: z.string(),
    parameters: z.record(z.string(), z.unknown()).default({}),
    constraints: z.array(z.unknown()).default([]),
    segments: z.array(z.unknown()).default([]),
  }),
);
const Refusal = z.looseObject({ message: z.string() });

/** The calls of Unleash's admin API (its version 8) that set our flags. Each may be repeated. */
export class UnleashAdmin {
  constructor(private readonly options: UnleashAdminOptions) {}

  /** The flags of the project, by name. */
  async flags(): Promise<Map<string, { hasStrategies: boolean }>> {
    const { features } = Features.parse(await this.#call('GET', ''));
    return new Map(
      features.map(({ name, environments }) => {
        const here = environments.find((each) => each.name === this.options.environment);
        return [name, { hasStrategies: here?.hasStrategies ?? false }] as const;
      }),
    );
  }

  /** One that is there already is left as it is: another instance may have made it. */
  async create(name: string, description: string): Promise<void> {
    await this.#call('POST', '', { name, description, type: 'operational' }, 409);
  }

  /** Makes `stage` the flag's one answer, and switches it on; or off for the monolith. */
  async ask(flag: string, stage: Stage): Promise<void> {
    if (stage === 'monolith') return this.#switch(flag, 'off');
    const strategies = await this.#strategies(flag);
    const wanted = strategyFor(flag, stage);
    const all = strategies.filter(unconditional);
    if (all.length === 0) await this.#call('POST', this.#path(flag, 'strategies'), wanted);
    for (const { id } of all) await this.#call('PUT', this.#path(flag, `strategies/${encodeURIComponent(id)}`), wanted);
    await this.#switch(flag, 'on');
  }

  /** Lets `percent` of the callers through. */
  async rollOut(flag: string, percent: number): Promise<void> {
    const strategies = await this.#strategies(flag);
    const wanted = gradualRollout(flag, percent);
    const shares = strategies.filter((each) => each.name === 'flexibleRollout' && unconditional(each));
    if (shares.length === 0) await this.#call('POST', this.#path(flag, 'strategies'), wanted);
    for (const { id, ...share } of shares)
      await this.#call('PUT', this.#path(flag, `strategies/${encodeURIComponent(id)}`), {
        ...share,
        disabled: false,
        parameters: { ...wanted.parameters, ...share.parameters, rollout: wanted.parameters.rollout },
      });
    await this.#switch(flag, 'on');
  }

  async #switch(flag: string, to: 'on' | 'off'): Promise<void> {
    await this.#call('POST', this.#path(flag, to));
  }

  async #strategies(flag: string) {
    return Strategies.parse(await this.#call('GET', this.#path(flag, 'strategies')));
  }

  #path(flag: string, rest: string): string {
    return `/${encodeURIComponent(flag)}/environments/${encodeURIComponent(this.options.environment)}/${rest}`;
  }

  async #call(method: string, path: string, body?: unknown, fine?: number): Promise<unknown> {
    const { url, token, project } = this.options;
    const at = new URL(`admin/projects/${encodeURIComponent(project)}/features${path}`, url);
    let answer: Response;
    let text: string;
    try {
      answer = await fetch(at, {
        method,
        headers: { authorization: token, ...(body !== undefined && { 'content-type': 'application/json' }) },
        body: body === undefined ? undefined : JSON.stringify(body),
        redirect: 'error',
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      text = await answer.text();
    } catch (error) {
      throw fail(
        'UPSTREAM_UNAVAILABLE',
        `Unleash (${at.host}) does not answer: nothing is known to have changed, try again`,
        undefined,
        {
          cause: error,
        },
      );
    }
    if (answer.status === fine) return undefined;
    if (answer.ok) return text ? JSON.parse(text) : undefined;
    throw refusal(at, answer.status, text);
  }
}

/** For everybody: neither constraints nor segments choose callers. */
const unconditional = ({ constraints, segments }: { constraints: unknown[]; segments: unknown[] }): boolean =>
  constraints.length === 0 && segments.length === 0;

function refusal(at: URL, status: number, text: string): DomainError {
  let message = '';
  try {
    message = Refusal.safeParse(JSON.parse(text)).data?.message.slice(0, 300) ?? '';
  } catch {
    // not JSON: the status has to do
  }
  const said = `Unleash (${at.host}) refused it with ${status}${message && `: ${message}`}`;
  if (status === 401 || status === 403)
    return fail('FLAGS_READ_ONLY', `${said}. Check UNLEASH_ADMIN_TOKEN and its rights in the project`);
  if (status === 404) return fail('FLAG_UNKNOWN', `${said}. Check UNLEASH_PROJECT and UNLEASH_ENVIRONMENT`);
  return fail('UPSTREAM_UNAVAILABLE', said);
}
