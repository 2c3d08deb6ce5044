import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { command, defineContext, event } from '@banyan/kernel';
import { DatabaseModule } from '@banyan/platform/database';
import { eventually, testDatabase } from '@banyan/testing';
import { beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { On, Serves, Subscribes } from './decorators.js';
import type { JobContext } from './handlers.js';
import { tidy } from './housekeeping.js';
import { idFloor } from './inbox.js';
import { Jobs } from './jobs.js';
import { MessagingModule } from './messaging.module.js';
import { createToyTables, startToy } from './toy.spec-support.js';

const test = testDatabase({ contexts: ['inventory', 'orders'] });
beforeAll(() => createToyTables(test));

describe('a job', () => {
  it('runs by itself, when woken, once for wake-ups with one id, and after the transaction that woke it', async () => {
    const ran: JobContext[] = [];
    const toy = await startToy(test, { jobRan: (ctx) => ran.push(ctx) });
    try {
      await eventually(() => expect(ran).toHaveLength(1));
      const jobs = toy.app.get(Jobs);
      // Late enough for all of these to be said before.
      const at = new Date(Date.now() + 6_000);
      await Promise.all([1, 2, 3].map(() => jobs.wake('inventory.toy', { id: 'a:b', at })));
      await jobs.wake('inventory.toy', { id: 'c' });
      await eventually(() => expect(ran.map(({ id }) => id)).toEqual([undefined, 'c', 'a:b']), { timeoutMs: 20_000 });
    } finally {
      await toy.close();
    }
  });
});

describe('an app does not start', () => {
  const contract = defineContext('inventory', {
    routes: [],
    queries: {},
    commands: { act: command({ input: z.strictObject({}), output: z.strictObject({}), key: () => 'one' }) },
    events: { Acted: event(1, 'thing', z.strictObject({})) },
    subscribes: ['orders.Something'],
  });
  const something = { ...event(1, 'thing', z.strictObject({})), name: 'orders.Something' };

  async function starting(providers: (new () => object)[]): Promise<string> {
    @Module({
      imports: [
        DatabaseModule.forRoot({ urls: { inventory: test.urls.inventory! }, max: 1 }),
        MessagingModule.forRoot({
          contracts: [contract],
          side: 'monolith',
          jobs: { connectionString: test.adminUrl, schema: 'banyan_jobs' },
        }),
      ],
      providers,
    })
    class App {}
    return NestFactory.createApplicationContext(App, { logger: false, abortOnError: false })
      .then((app) => app.init())
      .then(
        () => 'started',
        (error: Error) => error.message,
      );
  }

  @Subscribes(contract)
  class Events {
    @On(something)
    async onSomething() {}
  }

  it('when a handler is missing', async () => {
    @Serves(contract)
    class Empty {}
    expect(await starting([Empty, Events])).toBe('Empty does not serve inventory.act');
  });

  it('when subscriptions and contract disagree', async () => {
    @Serves(contract)
    class Server {
      async act() {
        return {};
      }
    }
    expect(await starting([Server])).toContain('declares subscriptions [orders.Something] but reacts to []');
  });

  it('when a reaction belongs to no context', async () => {
    @Injectable()
    class Stray {
      @On(something)
      async onSomething() {}
    }
    expect(await starting([Stray])).toContain('is not marked @Subscribes');
  });
});

it('what is past its time is deleted, and nothing else', async () => {
  const db = test.database('inventory');
  const day = 24 * 3600 * 1000;
  const old = idFloor(Date.now() - 32 * day);
  const young = idFloor(Date.now() - 5 * day);
  for (const id of [old, young]) {
    await db.query(`insert into inbox values ($1, 'x', now())`, [id]);
    for (const [subscriber, state] of [
      ['done', 'done'],
      ['late', 'pending'],
    ])
      await db.query(
        `insert into outbox (event_id, subscriber, type, type_version, aggregate, version, data, occurred_at, state, due_at)
         values ($1, $2, 'x', 1, 'x/1', 1, '{}', now(), $3, now())`,
        [id, subscriber, state],
      );
  }
  await db.query(
    `insert into idempotency_key values ('a', 'o', 'old', '', '', now() - interval '25 hours'), ('a', 'o', 'young', '', '', now())`,
  );
  // Of two that went into a stream one has been taken from it: the stream has the other one, and it alone.
  await db.query(`insert into outbox_stream values ('streamed', 'stream', 7, now())`);
  for (const [id, seq] of [
    [old.replace(/.$/, '1'), 7],
    [old.replace(/.$/, '2'), 8],
  ])
    await db.query(
      `insert into outbox (event_id, subscriber, type, type_version, aggregate, version, data, occurred_at, state, due_at, via, seq)
       values ($1, 'streamed', 'x', 1, 'x/1', 1, '{}', now(), 'done', now(), 'stream', $2)`,
      [id, seq],
    );
  await tidy(db);
  expect((await db.query('select event_id from inbox')).rows).toEqual([{ event_id: young }]);
  expect((await db.query('select event_id, state from outbox order by event_id, state')).rows).toEqual([
    { event_id: old, state: 'pending' },
    { event_id: old.replace(/.$/, '2'), state: 'done' },
    { event_id: young, state: 'done' },
    { event_id: young, state: 'pending' },
  ]);
  expect((await db.query('select key from idempotency_key')).rows).toEqual([{ key: 'young' }]);
});
