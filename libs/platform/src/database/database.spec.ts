import { type AddressInfo, connect, createServer } from 'node:net';
import { eventually, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { Database, type DatabaseOptions } from './database.js';
import {
  DatabaseUnavailableError,
  RetryableTransactionError,
  StatementTimeoutError,
  TransactionAbortedError,
} from './errors.js';

const test = testDatabase({ contexts: ['inventory'] });
let db: Database;

/** One of its own. `connectTimeoutMs`: a busy machine is no absent server. */
const open = (options: Partial<DatabaseOptions> = {}) =>
  new Database({
    ...{ context: 'inventory', url: test.urls.inventory ?? '', max: 1, connectTimeoutMs: 60_000 },
    ...options,
  });
const add = (id: number) => db.query('insert into counter (id, n) values ($1, 0)', [id]);
const ids = async () =>
  (await db.query<{ id: number }>('select id from counter order by id')).rows.map((row) => row.id);
const seen = async () => (await test.admin<{ id: number }>('select id from inventory.counter')).map((row) => row.id);
const crash = () => db.query('select pg_terminate_backend(pg_backend_pid())');
const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable('it did not fail'),
    (error) => error,
  );

beforeAll(async () => {
  db = open({ max: 10 });
  await test.admin('create table inventory.counter (id int primary key, n bigint not null)');
});
afterAll(() => db.close());
beforeEach(async () => {
  await test.admin('truncate inventory.counter');
});

describe('a transaction', () => {
  it('is seen by nobody else until it has committed', async () => {
    await db.transaction(undefined, async () => {
      await add(1);
      expect(await ids()).toEqual([1]);
      expect(await seen()).toEqual([]);
      expect(await db.outsideTransaction(ids)).toEqual([]);
    });
    expect(await seen()).toEqual([1]);
  });

  it('keeps to its own connection under concurrency', async () => {
    await Promise.all(
      Array.from({ length: 200 }, (_, id) =>
        db
          .transaction(undefined, async (tx) => {
            const me = async () =>
              (
                await db.query<{ pid: number; xid: string }>(
                  'select pg_backend_pid() as pid, pg_current_xact_id()::text as xid',
                )
              ).rows[0];
            await add(id);
            const first = await me();
            await new Promise((resolve) => setImmediate(resolve));
            expect(await me()).toEqual(first);
            expect((await tx.query('select id from counter')).rows).toContainEqual({ id });
            if (id % 2) throw new Error('odd');
          })
          .catch((error: Error) => expect(error.message).toBe('odd')),
      ),
    );
    expect(await ids()).toEqual(Array.from({ length: 100 }, (_, i) => i * 2));
    expect(db.metrics()).toMatchObject({ waiting: 0 });
    expect(db.metrics().total).toBeLessThanOrEqual(10);
  });

  it('keeps nothing when its function throws, and throws that very error', async () => {
    const error = new Error('no');
    expect(
      await failure(
        db.transaction(undefined, async () => {
          await add(1);
          throw error;
        }),
      ),
    ).toBe(error);
    expect(await seen()).toEqual([]);
  });

  it('is joined by one inside of it', async () => {
    await failure(
      db.transaction(undefined, async (outer) => {
        await db.transaction({ text: 'select 1/0' }, async (inner) => {
          expect(inner).toBe(outer);
          await add(1);
        });
        throw new Error('no');
      }),
    );
    expect(await seen()).toEqual([]);
    expect(db.currentTransaction()).toBeUndefined();
  });

  it('is not reported as committed when a failed statement was swallowed', async () => {
    const error = await failure(
      db.transaction(undefined, async () => {
        await add(1);
        await add(1).catch(() => {});
      }),
    );
    expect(error).toBeInstanceOf(TransactionAbortedError);
    expect(error.cause).toMatchObject({ code: '23505' });
    expect(await seen()).toEqual([]);
  });

  it('takes queries in parallel, one after the other on its connection', async () => {
    await db.transaction(undefined, () => Promise.all([add(1), add(2), add(3), ids()]));
    expect(await seen()).toEqual([1, 2, 3]);
  });

  it('refuses a query that comes after its end', async () => {
    let late: Promise<unknown> | undefined;
    await db.transaction(undefined, async () => {
      late = new Promise((resolve) => setTimeout(resolve, 50)).then(() => add(1));
      late.catch(() => {});
    });
    await expect(late).rejects.toThrow('was a promise not awaited?');
    expect(await seen()).toEqual([]);
  });

  it('begins with the fence in one round trip and shows what it said', async () => {
    const before = db.statementsExecuted();
    const epochs: unknown[] = [];
    await db.transaction({ text: `select banyan_fence('monolith', 0) as epoch` }, async () => {}, {
      statementTimeoutMs: 60_000,
      onBegin: (results) => epochs.push(...results.map((result) => result.rows)),
    });
    expect(epochs).toEqual([[{ epoch: 1 }]]);
    expect(db.statementsExecuted() - before).toBe(4); // BEGIN, SET LOCAL, the fence, COMMIT
  });

  it('keeps the connection when the fence refuses', async () => {
    const one = open();
    const backend = async () => (await one.query('select pg_backend_pid() as pid')).rows;
    const [pid, before] = [await backend(), one.metrics()];
    const refused = one.transaction({ text: `select banyan_fence('service', 0)` }, () => expect.unreachable());
    expect(await failure(refused)).toMatchObject({ code: 'BN001' });
    expect(one.metrics()).toEqual(before);
    expect(await backend()).toEqual(pid);
    await one.close();
  });

  it('does not run its function when onBegin throws', async () => {
    const closed = new Error('closed');
    const refused = db.transaction(undefined, () => expect.unreachable(), {
      onBegin: () => {
        throw closed;
      },
    });
    expect(await failure(refused)).toBe(closed);
  });

  it('sends last writes along with COMMIT, all or nothing', async () => {
    await db.transaction(undefined, async (tx) => {
      await add(1);
      tx.atCommit('insert into counter (id, n) values ($1, 0)', [2]);
    });
    expect(await seen()).toEqual([1, 2]);
    const error = await failure(
      db.transaction(undefined, async (tx) => {
        await add(3);
        tx.atCommit('insert into counter (id, n) values ($1, 0)', [3]);
        tx.atCommit('insert into counter (id, n) values ($1, 0)', [4]);
      }),
    );
    expect(error).toMatchObject({ code: '23505' });
    expect(await seen()).toEqual([1, 2]);
  });
});

describe('trouble', () => {
  it('of concurrency is a RetryableTransactionError, even when the caller wraps it', async () => {
    await add(1);
    const serializable = { text: 'set transaction isolation level serializable' };
    const error = await failure(
      db.transaction(serializable, async () => {
        await ids();
        await db.outsideTransaction(() => db.query('update counter set n = n + 1'));
        await db.query('update counter set n = n + 1').catch(() => {
          throw new Error('wrapped');
        });
      }),
    );
    expect(error).toBeInstanceOf(RetryableTransactionError);
    expect(error).toMatchObject({ kind: 'unavailable', cause: { code: '40001' } });
  });

  it('of a slow statement is a StatementTimeoutError', async () => {
    const slow = db.transaction(undefined, () => db.query('select pg_sleep(5)'), { statementTimeoutMs: 50 });
    expect(await failure(slow)).toBeInstanceOf(StatementTimeoutError);
    await db.transaction(undefined, () => db.query('select pg_sleep(0.1)')); // the limit went with its transaction
  });

  it('of the connection loses nothing but the transaction', async () => {
    const error = await failure(
      db.transaction(undefined, async () => {
        await add(1);
        await crash();
      }),
    );
    expect(error).toBeInstanceOf(DatabaseUnavailableError);
    expect(error).toMatchObject({ kind: 'unavailable', commitOutcome: 'not_committed' });
    expect(await failure(crash())).toBeInstanceOf(DatabaseUnavailableError);
    await db.transaction(undefined, () => add(2));
    expect(await seen()).toEqual([2]);
  });

  it('while the commit is under way leaves the outcome unknown, and says so', async () => {
    await test.admin(`
      create function inventory.die() returns trigger language plpgsql security definer as
        $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
      create constraint trigger die after insert on inventory.counter deferrable initially deferred
        for each row when (new.id = 666) execute function inventory.die()`);
    const error = await failure(db.transaction(undefined, () => add(666)));
    expect(error).toMatchObject({ code: 'DATABASE_UNAVAILABLE', commitOutcome: 'unknown' });
  });

  it('of all connections at once is over with the next call', async () => {
    await Promise.all(Array.from({ length: 10 }, () => db.query('select pg_sleep(0.05)')));
    expect(db.metrics().idle).toBe(10);
    await test.admin(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'banyan:inventory' and datname = current_database()`,
    );
    await eventually(() => db.metrics().idle === 0);
    await db.transaction(undefined, () => add(1));
  });

  it('of an absent server is a DatabaseUnavailableError', async () => {
    const absent = new Database({ context: 'inventory', url: 'postgres://a:b@127.0.0.1:1/x', max: 1 });
    expect(await failure(absent.query('select 1'))).toBeInstanceOf(DatabaseUnavailableError);
    expect(await failure(absent.transaction(undefined, async () => {}))).toBeInstanceOf(DatabaseUnavailableError);
    await absent.close();
  });

  it('of a full pool is a DatabaseUnavailableError after the time to wait', async () => {
    const small = open({ connectTimeoutMs: 1500 });
    // It has its connection first: to make one may take longer.
    await eventually(() => small.query('select 1').then(() => true));
    await small.transaction(undefined, async () => {
      expect(await failure(small.outsideTransaction(() => small.query('select 1')))).toBeInstanceOf(
        DatabaseUnavailableError,
      );
    });
    await small.close();
  });

  it('of a plan that a migration made stale ends with a new connection', async () => {
    const one = open();
    const all = () => one.query('select * from counter');
    await all();
    await test.admin('alter table inventory.counter add column extra int');
    expect(await failure(all())).toBeInstanceOf(RetryableTransactionError);
    await all();
    await one.close();
  });
});

it('limits every statement when asked to', async () => {
  // Postgres's limit; ours, a little later, is for one that says nothing any more.
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
  const strict = open({ statementTimeoutMs: 50 });
  expect(await failure(strict.query('select pg_sleep(5)'))).toBeInstanceOf(StatementTimeoutError);
  await strict.close();
});

it('gives up on a Postgres that has stopped answering, and goes on with a new connection when it answers again', async () => {
  const { hostname, port } = new URL(test.urls.inventory ?? '');
  let silent = false;
  const wire = createServer((near) => {
    const far = connect(Number(port), hostname);
    near.on('data', (bytes) => silent || far.write(bytes)).on('error', () => {});
    far.on('data', (bytes) => silent || near.write(bytes)).on('error', () => {});
    near.on('close', () => far.destroy());
    far.on('close', () => near.destroy());
  });
  await new Promise<void>((listening) => wire.listen(0, '127.0.0.1', listening));
  const url = new URL(test.urls.inventory ?? '');
  url.port = String((wire.address() as AddressInfo).port);
  const limits = { statementTimeoutMs: 100, connectTimeoutMs: 300 };
  const far = open({ url: url.href, max: 2, ...limits });
  await eventually(() => far.query('select 1').then(() => true));
  silent = true;
  expect(await failure(far.query('select 1'))).toBeInstanceOf(DatabaseUnavailableError);
  expect(await failure(far.transaction(undefined, () => far.query('select 1')))).toBeInstanceOf(
    DatabaseUnavailableError,
  );
  silent = false;
  await eventually(async () => expect((await far.query('select 1 as one')).rows).toEqual([{ one: 1 }]));
  await far.close();
  await new Promise((closed) => wire.close(closed));
});

it('leaves the connection open after an SQL error', async () => {
  const backend = async (database: Database) => (await database.query('select pg_backend_pid() as pid')).rows[0];
  const one = open();
  const before = await backend(one);
  expect(await failure(one.query('select 1/0'))).toMatchObject({ code: '22012' });
  expect(await backend(one)).toEqual(before);
  await one.close();
});

it('prepares 500 texts and not one more', async () => {
  const one = open();
  for (let i = 0; i < 600; i++) await one.query(`select ${i}`);
  const [prepared] = (await one.query('select count(*) as count from pg_prepared_statements')).rows;
  expect(prepared).toEqual({ count: 500 });
  await one.close();
});

it('gives bigint as a number and refuses one that does not fit', async () => {
  expect((await db.query('select 9007199254740991::bigint as n')).rows).toEqual([{ n: Number.MAX_SAFE_INTEGER }]);
  expect(await failure(db.query('select 9007199254740992::bigint as n'))).toBeInstanceOf(RangeError);
});
