import { Injectable, type OnModuleDestroy } from '@nestjs/common';

/** How long a change made by another process may stay unseen, ms. */
const POLL = 250;

interface Waiter {
  news: boolean;
  wake?: () => void;
}

/** Lets a reader wait until an order has changed: told in process, polled for what other processes do. */
@Injectable()
export class OrderWatch implements OnModuleDestroy {
  readonly #waiters = new Map<string, Set<Waiter>>();
  #closing = false;

  /** Wakes those who wait for the order. To be called once its change has been committed; waking for nothing is harmless. */
  changed(orderId: string): void {
    for (const waiter of this.#waiters.get(orderId) ?? []) {
      waiter.news = true;
      waiter.wake?.();
    }
  }

  /** What `read` answers as soon as `ready` holds for it; after `withinMs`, or when `signal` says so, what it answers then. */
  async until<T>(
    orderId: string,
    read: () => Promise<T>,
    ready: (answer: T) => boolean,
    withinMs: number,
    signal?: AbortSignal,
  ): Promise<T> {
    const end = performance.now() + withinMs;
    const waiter: Waiter = { news: false };
    const waiters = this.#waiters.get(orderId) ?? new Set();
    this.#waiters.set(orderId, waiters.add(waiter));
    const wake = () => waiter.wake?.();
    signal?.addEventListener('abort', wake, { once: true });
    try {
      for (;;) {
        const answer = await read();
        const left = end - performance.now();
        if (ready(answer) || left <= 0 || signal?.aborted || this.#closing) return answer;
        await this.#pause(waiter, Math.min(POLL, left));
        waiter.news = false;
      }
    } finally {
      signal?.removeEventListener('abort', wake);
      waiters.delete(waiter);
      if (waiters.size === 0) this.#waiters.delete(orderId);
    }
  }

  onModuleDestroy(): void {
    this.#closing = true;
    for (const waiters of this.#waiters.values()) for (const waiter of waiters) waiter.wake?.();
  }

  /** Waits for `ms`, less when there are news, which may have come before. */
  #pause(waiter: Waiter, ms: number): Promise<void> {
    if (waiter.news) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      waiter.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
