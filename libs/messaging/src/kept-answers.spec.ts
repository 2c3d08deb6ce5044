import { type ConsistencyTokens, anonymous, defineContext } from '@banyan/kernel';
import type { Cache, Forgotten, Kept } from '@banyan/platform/cache';
import { beforeEach, describe, expect, it } from 'vitest';
import type { QueryContext } from './handlers.js';
import { KeptAnswers } from './kept-answers.js';
import type { Decision, Placement } from './placement.js';
import { newScope, runInScope } from './scope.js';

const shop = defineContext('shop', { routes: [], queries: {}, commands: {}, events: {}, subscribes: [] });

/** Keeps for ever what it was given, and notes what it is told. */
class Book implements Cache {
  readonly kept = new Map<string, unknown>();
  readonly forgotten: Forgotten[] = [];

  async through<T>({ key }: Kept<T>, load: () => Promise<T>): Promise<T> {
    if (!this.kept.has(key)) this.kept.set(key, await load());
    return this.kept.get(key) as T;
  }

  async forget(what: Forgotten): Promise<void> {
    this.forgotten.push(what);
  }

  close(): void {}
}

let book: Book;
let where: Decision;
let changed: (context: string) => void;
let answers: KeptAnswers;
beforeEach(() => {
  book = new Book();
  where = { at: 'local', side: 'monolith', epoch: 3 };
  const placement: Placement = {
    decide: () => where,
    changed: async () => {},
    onChange: (listener) => void (changed = listener),
  };
  answers = new KeptAnswers(book, placement);
});

const asks = (consistency?: ConsistencyTokens) => ({ envelope: { consistency } }) as unknown as QueryContext;
const kept = { key: 'thing/1', groups: ['things'], freshMs: 1_000, staleMs: 1_000 };
let asked = 0;
const ask = (ctx = asks()) => answers.answer(shop, ctx, kept, async () => ++asked);

describe('answers are kept', () => {
  it('by the side that owns the context, under a name of its own', async () => {
    const first = await ask();
    expect(await ask()).toBe(first);
    expect([...book.kept.keys()]).toEqual(['shop/monolith/thing/1']);
    where = { at: 'local', side: 'service', epoch: 4 };
    expect(await ask()).not.toBe(first);
    where = { at: 'hold' };
    const unkept = await ask();
    expect(await ask()).not.toBe(unkept);
  });

  it('for nobody who has written there lately: he sees what he wrote on every instance', async () => {
    const first = await ask();
    expect(await ask(asks({ shop: { side: 'monolith', epoch: 3 } }))).not.toBe(first);
    expect(await ask(asks({ other: { side: 'monolith', epoch: 3 } }))).toBe(first);
  });
});

describe('they are forgotten', () => {
  it('once the change has been committed', async () => {
    await ask();
    book.forgotten.length = 0;
    const commits: (() => void)[] = [];
    runInScope({ ...newScope(anonymous), afterCommit: (fn) => void commits.push(fn) }, () =>
      answers.forget(shop, { keys: ['thing/1'], groups: ['things'] }),
    );
    expect(book.forgotten).toEqual([]);
    for (const fn of commits) fn();
    expect(book.forgotten).toEqual([{ keys: ['shop/monolith/thing/1'], groups: ['shop/monolith/things'] }]);
  });

  it('all of them, when the context has had another owner meanwhile, and at a start', async () => {
    await ask();
    const all = { groups: ['shop/monolith'] };
    expect(book.forgotten).toEqual([all]);
    await ask();
    changed('shop');
    expect(book.forgotten).toEqual([all]);
    where = { at: 'hold' };
    changed('shop');
    where = { at: 'local', side: 'monolith', epoch: 5 };
    changed('shop');
    expect(book.forgotten).toEqual([all, all]);
  });
});
