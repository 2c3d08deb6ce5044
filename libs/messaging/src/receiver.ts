import { Injectable } from '@nestjs/common';
import { DomainError } from '@banyan/kernel';
import { withRemoteParent } from '@banyan/platform/telemetry';
import { z } from 'zod';
import type { Bus } from './bus.js';
import { Envelope, EventEnvelope, GivenBack, type Receipt, type Reply } from './envelope.js';
import { CONTEXT_UNKNOWN, INPUT_INVALID, refusal, unreachable } from './failures.js';
import type { Inbox } from './inbox.js';
import type { WayIn } from './placement.js';
import { outOfScope, runInScope, scopeOf } from './scope.js';

const Events = z.array(EventEnvelope);
const Returned = z.array(GivenBack);

/**
 * What a transport hands messages to: the way into this process for calls and events of others. It serves what it is
 * given and never sends it on, so no message goes round in circles: the fence says when it is in the wrong place.
 */
@Injectable()
export class Receiver implements WayIn {
  readonly #inboxes = new Map<string, Inbox>();
  readonly #outboxes = new Map<string, (back: GivenBack[]) => Promise<void>>();
  readonly #doors = new Set<() => Promise<void>>();
  readonly #running = new Set<Promise<unknown>>();
  #closed = false;

  constructor(private readonly bus: Bus) {}

  /** Takes a context's events. */
  serve(context: string, inbox: Inbox): void {
    this.#inboxes.set(context, inbox);
  }

  inbox(context: string): Inbox | undefined {
    return this.#inboxes.get(context);
  }

  /** Takes the events back that a context has published and a subscriber cannot take. */
  takesBack(context: string, take: (back: GivenBack[]) => Promise<void>): void {
    this.#outboxes.set(context, take);
  }

  /** `close` ends a way in, before the process stops: what comes later goes to other processes by itself. */
  throughDoor(close: () => Promise<void>): void {
    this.#doors.add(close);
  }

  /** Serves a message as it came off the wire. Never rejects. */
  async call(message: unknown): Promise<Reply> {
    const { data: envelope, error } = Envelope.safeParse(message);
    if (!envelope) return refusal(unreadable('An envelope', error));
    const endpoint = this.bus.endpoint(envelope.context);
    if (!endpoint) return refusal(nobody(envelope.context));
    if (this.#closed) return refusal(unreachable(envelope.context, 'its process is stopping'));
    const name = `${envelope.context}.${envelope.operation}`;
    return this.#track(
      outOfScope(() =>
        // Continues the caller's trace.
        withRemoteParent(envelope.traceparent, name, undefined, () =>
          runInScope(scopeOf(envelope), () => endpoint.handle(envelope)),
        ),
      ),
    );
  }

  /** Takes events as they came off the wire. Rejects with a DomainError when there are no receipts for them. */
  async deliver(context: string, message: unknown, traceparent?: string): Promise<Receipt[]> {
    const { data: events, error } = Events.safeParse(message);
    if (!events) throw unreadable('An event', error);
    const inbox = this.#inboxes.get(context);
    if (!inbox) throw nobody(context);
    if (this.#closed) throw unreachable(context, 'its process is stopping');
    const receive = () => inbox.receive(events);
    return this.#track(
      outOfScope(() =>
        traceparent ? withRemoteParent(traceparent, `take for ${context}`, undefined, receive) : receive(),
      ),
    );
  }

  /** Takes events back as they came off the wire. Rejects with a DomainError when the outbox has not taken them. */
  async giveBack(context: string, message: unknown): Promise<void> {
    const { data: back, error } = Returned.safeParse(message);
    if (!back) throw unreadable('An event that was given back', error);
    const take = this.#outboxes.get(context);
    if (!take) throw nobody(context);
    if (this.#closed) throw unreachable(context, 'its process is stopping');
    return this.#track(outOfScope(() => take(back)));
  }

  /** Refuses what comes from here on, and waits for what is running. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#doors].map((close) => close()));
    this.#closed = true;
    await Promise.allSettled(this.#running);
  }

  #track<T>(work: Promise<T>): Promise<T> {
    this.#running.add(work);
    const done = () => this.#running.delete(work);
    work.then(done, done);
    return work;
  }
}

const nobody = (context: string) =>
  new DomainError(CONTEXT_UNKNOWN, 'unavailable', `Nothing serves ${context} in this process`);

const unreadable = (what: string, error: z.ZodError) =>
  new DomainError(INPUT_INVALID, 'invalid', `${what} that cannot be read`, {
    errors: error.issues
      .slice(0, 10)
      .map(({ path, message }) => ({ pointer: path.map((part) => `/${String(part)}`).join(''), detail: message })),
  });
