import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { OrderWatch } from './order-watch.js';

const id = 'an order';
const ready = (status: string) => status !== 'pending';

describe('Waiting for an order', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function setUp() {
    const watch = new OrderWatch();
    const order = { status: 'pending', reads: 0 };
    const read = async () => (order.reads++, order.status);
    const wait = (ms: number, signal?: AbortSignal) => {
      const waiting = { answer: undefined as string | undefined };
      void watch.until(id, read, ready, ms, signal).then((answer) => (waiting.answer = answer));
      return waiting;
    };
    return { watch, order, wait };
  }

  it('answers at once when there is nothing to wait for', async () => {
    const { order, wait } = setUp();
    order.status = 'rejected';
    const waiting = wait(10_000);
    await vi.advanceTimersByTimeAsync(0);
    expect(waiting.answer).toBe('rejected');
  });

  it('answers right after a change in this process, with one more look', async () => {
    const { watch, order, wait } = setUp();
    const waiting = wait(10_000);
    await vi.advanceTimersByTimeAsync(40);
    order.status = 'confirmed';
    watch.changed(id);
    await vi.advanceTimersByTimeAsync(1);
    expect(waiting.answer).toBe('confirmed');
    expect(order.reads).toBe(2);
  });

  it('sees what another process did within a quarter of a second', async () => {
    const { order, wait } = setUp();
    const waiting = wait(10_000);
    await vi.advanceTimersByTimeAsync(1);
    order.status = 'confirmed';
    await vi.advanceTimersByTimeAsync(250);
    expect(waiting.answer).toBe('confirmed');
  });

  it('answers with what there is when the time is over, and has asked seldom', async () => {
    const { order, wait } = setUp();
    const waiting = wait(2_000);
    await vi.advanceTimersByTimeAsync(1_999);
    expect(waiting.answer).toBeUndefined();
    await vi.advanceTimersByTimeAsync(1);
    expect(waiting.answer).toBe('pending');
    expect(order.reads).toBeLessThan(12);
  });

  it('ends when the client has gone and when the process stops', async () => {
    const { watch, wait } = setUp();
    const client = new AbortController();
    const gone = wait(10_000, client.signal);
    const stopped = wait(10_000);
    await vi.advanceTimersByTimeAsync(10);
    client.abort();
    await vi.advanceTimersByTimeAsync(0);
    expect([gone.answer, stopped.answer]).toEqual(['pending', undefined]);
    watch.onModuleDestroy();
    await vi.advanceTimersByTimeAsync(0);
    expect(stopped.answer).toBe('pending');
    expect(vi.getTimerCount()).toBe(0);
  });
});
