import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '@banyan/testing';
import { afterEach, describe, expect, it } from 'vitest';
import type { Answer } from './answer.js';
import { Figures } from './figures.js';
import { Mirror, type MirrorOptions, type Sample, TooLarge } from './mirror.js';

const json = (value: unknown, status = 200): Answer => ({
  status,
  contentType: 'application/json',
  body: Buffer.from(JSON.stringify(value)),
});
const never = () => new Promise<Answer>(() => {});

let mirror: Mirror;
let figures: Figures;
afterEach(() => mirror.close());

function open(options: Partial<MirrorOptions> = {}, random?: () => number): Mirror {
  figures = new Figures();
  figures.begin('shop', 'now');
  mirror = new Mirror(figures, { againAfterMs: [5, 10], timeoutMs: 100, ...options }, random);
  return mirror;
}

/** A read that the monolith has answered with `{a: 1}`. */
const sample = (ask: Sample['ask'], rest: Partial<Sample> = {}): Sample => ({
  ...{ context: 'shop', operation: 'GET /a', since: 'now', owner: 'monolith' },
  ...{ served: { side: 'monolith', answer: json({ a: 1 }) }, ask },
  ...rest,
});
const sides = (monolith: () => unknown, service: () => unknown) =>
  sample(async (side) => json(side === 'monolith' ? monolith() : service()));
const counts = () => figures.contexts()['shop']!.operations['GET /a'];

describe('A sample', () => {
  it('asks the candidate only, when the owner has answered and both agree', async () => {
    const asked: string[] = [];
    open();
    await mirror.take(
      sample(async (side) => {
        asked.push(side);
        return json({ a: 1 });
      }),
    );
    expect(asked).toEqual(['service']);
    expect(counts()).toMatchObject({ match: 1 });
  });

  it('that the candidate has served asks the owner', async () => {
    const asked: string[] = [];
    open();
    const ask: Sample['ask'] = async (side) => {
      asked.push(side);
      return json({ a: 2 });
    };
    const outcome = await mirror.take(sample(ask, { served: { side: 'service', answer: json({ a: 2 }) } }));
    expect({ asked, outcome }).toMatchObject({ asked: ['monolith'], outcome: { verdict: 'match' } });
  });

  it('after the hand-over has the service as its owner, and the monolith as its candidate', async () => {
    open();
    const served = { side: 'service' as const, answer: json({ a: 1 }) };
    const outcome = await mirror.take(
      sample(async (side) => json({ a: side === 'service' ? 1 : 9 }), { owner: 'service', served }),
    );
    expect(outcome).toMatchObject({ verdict: 'difference', differences: [{ path: '/a', expected: 1, actual: 9 }] });
  });

  it('that differs, and does not when asked again, is lag', async () => {
    let behind = true;
    open();
    setTimeout(() => (behind = false), 8);
    const outcome = await mirror.take(
      sides(
        () => ({ a: 1 }),
        () => ({ a: behind ? 0 : 1 }),
      ),
    );
    expect(outcome).toMatchObject({ verdict: 'lag' });
    expect(counts()).toMatchObject({ lag: 1, difference: 0 });
  });

  it('of a row that is written all the time is lag: the copy shows what the owner has shown', async () => {
    open();
    // Written before each look at the owner; the copy is one write behind.
    let writes = 1;
    expect(
      await mirror.take(
        sides(
          () => ({ a: ++writes }),
          () => ({ a: writes - 1 }),
        ),
      ),
    ).toMatchObject({ verdict: 'lag' });
  });

  it('that differs to the end is a difference', async () => {
    open();
    const outcome = await mirror.take(
      sides(
        () => ({ a: 1 }),
        () => ({ a: 0 }),
      ),
    );
    expect(outcome).toMatchObject({ verdict: 'difference', differences: [{ kind: 'changed', path: '/a' }] });
  });

  it('in which the owner differs from itself is noise, but only in that field, and in that way', async () => {
    open();
    let n = 0;
    const answer = (extra: object = {}) => ({ a: 1, at: `${++n}`, ...extra });
    const sides = (owner: () => unknown, candidate: () => unknown) =>
      sample(async (side) => json(side === 'monolith' ? owner() : candidate()), { served: undefined });
    expect(
      await mirror.take(
        sides(
          () => answer(),
          () => answer(),
        ),
      ),
    ).toMatchObject({ verdict: 'noise' });
    expect(
      await mirror.take(
        sides(
          () => answer(),
          () => answer({ a: 2 }),
        ),
      ),
    ).toMatchObject({
      verdict: 'difference',
      differences: [{ path: '/a' }],
    });
    expect(
      await mirror.take(
        sides(
          () => answer(),
          () => ({ a: 1 }),
        ),
      ),
    ).toMatchObject({
      verdict: 'difference',
      differences: [{ kind: 'missing', path: '/at' }],
    });
  });

  it('whose answers are noise as a whole proves nothing: it is dropped', async () => {
    let n = 0;
    open();
    const ask = async () => ({ status: 200, contentType: 'text/html', body: Buffer.from(`<p>${++n}`) });
    expect(await mirror.take(sample(ask, { served: undefined }))).toMatchObject({ verdict: 'dropped' });
    expect(figures.contexts()['shop']!.divergences).toMatchObject([{ verdict: 'noise', kind: 'body' }]);
  });

  it('asks the owner twice now and then, and counts it', async () => {
    open({ twiceEvery: 10 });
    for (let n = 0; n < 40; n += 1)
      await mirror.take(
        sides(
          () => ({ a: 1 }),
          () => ({ a: 1 }),
        ),
      );
    expect(counts()).toMatchObject({ match: 40, twice: 4, unlike: 0 });
  });

  it('that the owner cannot answer says nothing about the candidate', async () => {
    open();
    const served = { side: 'monolith' as const, answer: json({}, 503) };
    expect(await mirror.take(sample(async () => json({}), { served }))).toMatchObject({ verdict: 'dropped' });
    expect(
      await mirror.take(sample(async () => Promise.reject(new Error('gone')), { served: undefined })),
    ).toMatchObject({
      verdict: 'dropped',
    });
  });

  it('is an error of the candidate when it fails, refuses for its load, hangs, or never ends', async () => {
    open();
    for (const [ask, why] of [
      [async () => json({}, 500), 'status 500'],
      [async () => json({}, 429), 'status 429'],
      [async () => Promise.reject(Object.assign(new Error('x'), { code: 'ECONNRESET' })), 'ECONNRESET'],
      [async () => Promise.reject(new TooLarge()), 'answer too large'],
      [never, 'timeout'],
      [() => { throw new Error('at once'); }, 'no answer'], // prettier-ignore
    ] as [Sample['ask'], string][])
      expect(await mirror.take(sample(ask))).toMatchObject({ verdict: 'error', differences: [{ actual: why }] });
    expect(counts()).toMatchObject({ error: 6 });
  });

  it('is dropped when the answer is too large to be kept, and so counted', async () => {
    open();
    await mirror.take(sample(async () => json({}), { served: { side: 'monolith', answer: 'too large' } }));
    expect(counts()).toMatchObject({ dropped: 1, match: 0 });
  });

  it('of another stage is forgotten', async () => {
    open();
    const slow = mirror.take(sample(async () => sleep(20, json({ a: 1 }))));
    figures.begin('shop', 'later');
    await slow;
    expect(counts()).toBeUndefined();
  });
});

describe('A mirror', () => {
  it('never asks for anything but GET and HEAD again', async () => {
    open();
    let asked = 0;
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'CONNECT', 'get']) {
      expect(mirror.wants(method)).toBe(false);
      mirror.offer(sample(async () => json(++asked), { method }));
    }
    mirror.offer(sample(async () => json({ a: ++asked }), { method: 'HEAD' }));
    await eventually(() => asked > 0);
    expect(asked).toBe(1);
  });

  it('takes the share that it was told to take', () => {
    let n = 0;
    open({ share: 0.25 }, () => (n++ % 100) / 100);
    expect(Array.from({ length: 1_000 }, () => mirror.wants('GET')).filter(Boolean)).toHaveLength(250);
  });

  it('with a candidate that hangs is full at once, asks no more than it may, and costs the caller nothing', async () => {
    let hanging = 0;
    let most = 0;
    open({ concurrency: 8, queue: 8, timeoutMs: 50 });
    const ask: Sample['ask'] = (side, { signal }) => {
      // Now and then the owner is asked twice as well.
      if (side === 'monolith') return never();
      most = Math.max(most, ++hanging);
      signal.addEventListener('abort', () => (hanging -= 1));
      return never();
    };
    const times: number[] = [];
    let offered = 0;
    for (let n = 0; n < 5_000; n += 1) {
      const from = performance.now();
      if (mirror.wants('GET')) {
        mirror.offer(sample(ask));
        offered += 1;
      }
      times.push(performance.now() - from);
      if (n % 50 === 0) await sleep(1);
    }
    times.sort((a, b) => a - b);
    // Microseconds; who waited for the candidate would be here for 50 ms.
    expect(times[Math.floor(times.length * 0.99)]).toBeLessThan(5);
    await eventually(() => (counts()?.error ?? 0) + (counts()?.dropped ?? 0) === offered);
    expect(most).toBeLessThanOrEqual(8);
    expect(counts()!.error).toBeGreaterThan(0);
    expect(counts()!.match).toBe(0);
  });

  it('asks a candidate that cannot be reached now and then, and counts an error for every read all the same', async () => {
    open();
    let asked = 0;
    let dead = true;
    const ask: Sample['ask'] = async (side) => {
      // Now and then the owner is asked twice as well.
      if (side === 'monolith') return json({ a: 1 });
      asked += 1;
      if (dead) throw Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });
      return json({ a: 1 });
    };
    // By the clock that says when it may be asked again.
    const from = Date.now();
    for (let n = 0; n < 500; n += 1)
      expect(await mirror.take(sample(ask))).toMatchObject({
        verdict: 'error',
        differences: [{ actual: 'ECONNREFUSED' }],
      });
    expect(counts()).toMatchObject({ error: 500, dropped: 0 });
    expect(asked).toBeLessThanOrEqual(3 + (Date.now() - from) / 250);
    // Another context's candidate is another matter.
    figures.begin('mill', 'now');
    expect(await mirror.take(sample(async () => json({ a: 1 }), { context: 'mill' }))).toMatchObject({
      verdict: 'match',
    });
    dead = false;
    await eventually(async () => (await mirror.take(sample(ask)))?.verdict === 'match');
  });

  it('goes on asking a candidate that answers, however badly', async () => {
    open();
    let asked = 0;
    for (let n = 0; n < 20; n += 1)
      await mirror.take(
        sample(async () => {
          asked += 1;
          if (n % 2) throw Object.assign(new Error('reset'), { code: 'ECONNRESET' });
          return json({}, 500);
        }),
      );
    expect({ asked, counts: counts() }).toMatchObject({ asked: 20, counts: { error: 20 } });
  });

  it('offered more than it has room for drops it, and counts what it drops', async () => {
    open({ concurrency: 2, queue: 3, timeoutMs: 50 });
    await Promise.all(Array.from({ length: 20 }, () => mirror.take(sample(never))));
    expect(counts()).toMatchObject({ error: 5, dropped: 15 });
  });

  it('that is closed asks nothing more and keeps nobody waiting', async () => {
    open({ timeoutMs: 60_000, againAfterMs: [60_000] });
    const hung = mirror.take(sample(never));
    const differing = mirror.take(
      sides(
        () => 1,
        () => 2,
      ),
    );
    await sleep(10);
    const from = performance.now();
    await mirror.close();
    expect(await Promise.all([hung, differing])).toEqual([undefined, undefined]);
    expect(performance.now() - from).toBeLessThan(20_000);
    expect(mirror.wants('GET')).toBe(false);
  });
});
