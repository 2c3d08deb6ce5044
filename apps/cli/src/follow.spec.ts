import type { ContextStatus } from '@banyan/extraction/status';
import { eventually } from '@banyan/testing';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ControlClient } from './control-client.js';
import { OPERATOR_TOKEN, ScriptedControlPlane } from './control-plane.spec-support.js';
import { CommandError } from './exit.js';
import { type FollowOptions, type Goal, follow } from './follow.js';
import { stagesBetween } from './journey.js';

describe('Following a context', () => {
  let controlPlane: ScriptedControlPlane;
  let seen: ContextStatus[];
  let away: number;
  const interrupt = new AbortController();

  beforeEach(async () => {
    controlPlane = new ScriptedControlPlane('inventory', 'orders');
    await controlPlane.start();
    [seen, away] = [[], 0];
  });
  afterEach(() => {
    vi.useRealTimers();
    return controlPlane.stop();
  });
  /** From here on time passes only as this says: the machine's own delays count for nothing. */
  const pass = (ms = 0) => vi.setSystemTime(Date.now() + ms);

  const go = (goal: Goal, options: Partial<FollowOptions> = {}) =>
    follow(new ControlClient([controlPlane.url], OPERATOR_TOKEN), 'inventory', goal, {
      timeoutMs: 600_000,
      signal: interrupt.signal,
      onStatus: (status) => seen.push(status),
      onAway: () => away++,
      ...options,
    });
  const failure = async (going: Promise<unknown>) => (await going.catch((error: unknown) => error)) as CommandError;

  it('ends when it is where it was to go, and not a step before', async () => {
    controlPlane.tell('inventory', { target: 'live', doing: 'copying rows (43 %)' });
    const going = go({ stage: 'live' });
    await eventually(() => seen.length === 1);
    controlPlane.tell('orders', { target: 'live', stage: 'live', owner: 'service' });
    controlPlane.tell('inventory', { stage: 'live', owner: null, doing: 'handing over' });
    controlPlane.tell('inventory', { owner: 'service', epoch: 2, doing: null });
    expect(await going).toMatchObject({ stage: 'live', owner: 'service', epoch: 2 });
    expect(seen.map(({ context, doing }) => `${context} ${doing}`)).toEqual([
      'inventory copying rows (43 %)',
      'inventory handing over',
      'inventory null',
    ]);
  });

  it('waits for the share of a canary as well', async () => {
    controlPlane.tell('inventory', { stage: 'canary', target: 'canary', percent: 5 });
    const going = go({ stage: 'canary', percent: 50 });
    await eventually(() => seen.length === 1);
    controlPlane.tell('inventory', { percent: 50 });
    expect(await going).toMatchObject({ percent: 50 });
  });

  it('goes on when the control plane was away', async () => {
    controlPlane.tell('inventory', { target: 'live' });
    const going = go({ stage: 'live' });
    await eventually(() => seen.length === 1);
    await controlPlane.stop();
    await eventually(() => away > 0);
    await controlPlane.start();
    controlPlane.tell('inventory', { stage: 'live' });
    expect(await going).toMatchObject({ stage: 'live' });
  });

  it('ends at once when it is frozen, and says how it goes on', async () => {
    controlPlane.tell('inventory', { stage: 'shadow', target: 'live', frozen: true });
    const { code, message } = await failure(go({ stage: 'live' }));
    expect(code).toBe('BLOCKED');
    expect(message).toBe('inventory is frozen in shadow: banyan freeze inventory --off lets it go on.');
  });

  it('ends when the same reason has stood in the way for too long, and not while anything moves', async () => {
    controlPlane.tell('inventory', { stage: 'shadow', target: 'live', blocked: 'The service is not ready' });
    pass();
    const going = failure(go({ stage: 'live' }, { patienceMs: 600 }));
    await eventually(() => seen.length === 1);
    for (let i = 1; i <= 4; i++) {
      pass(500);
      controlPlane.tell('inventory', { doing: `waiting (${i})` });
      await eventually(() => seen.length === i + 1);
    }
    pass(601);
    const { code, message } = await going;
    expect(code).toBe('BLOCKED');
    expect(message).toBe('inventory stays in shadow: The service is not ready. banyan status inventory says more.');
  });

  it('ends when it is out of time, with what it waits for', async () => {
    const gate = { name: 'read parity', ok: false, value: '3', limit: '50', reason: '47 samples are missing' };
    controlPlane.tell('inventory', { stage: 'shadow', target: 'live', gates: [gate] });
    pass();
    const going = failure(go({ stage: 'live' }, { timeoutMs: 700 }));
    await eventually(() => seen.length === 1);
    pass(701);
    const { code, detail } = await going;
    expect(code).toBe('TIMEOUT');
    expect(detail).toMatch(/in shadow and not in live after 1 s: it waits for read parity \(47 samples are missing\)/);
  });

  it('ends when another target was set', async () => {
    controlPlane.tell('inventory', { stage: 'shadow', target: 'live' });
    const going = failure(go({ stage: 'live' }));
    await eventually(() => seen.length === 1);
    const last = { at: '', from: 'canary', to: 'shadow', actor: 'guardrail', reason: 'error rate 12 %' } as const;
    controlPlane.tell('inventory', { target: 'shadow', transitions: [last] });
    const { code, detail } = await going;
    expect(code).toBe('REFUSED');
    expect(detail).toContain('canary -> shadow, by guardrail: error rate 12 %');
  });

  it('ends when it is told to', async () => {
    const stop = new AbortController();
    const going = failure(go({ stage: 'live' }, { signal: stop.signal }));
    await eventually(() => seen.length === 1);
    stop.abort();
    expect(await going).toMatchObject({ name: 'AbortError' });
  });
});

describe('The stages on the way', () => {
  it.each([
    ['monolith', 'live', ['replicate', 'shadow', 'canary', 'live']],
    ['shadow', 'live', ['canary', 'live']],
    ['live', 'monolith', ['canary', 'shadow', 'replicate', 'monolith']],
    ['canary', 'shadow', ['shadow']],
    ['canary', 'canary', ['canary']],
  ] as const)('from %s to %s', (from, to, way) => {
    expect(stagesBetween(from, to)).toEqual(way);
  });
});
