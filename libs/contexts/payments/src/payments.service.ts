import { type Payment as PaymentView, payments } from '@banyan/contracts';
import { hasRole, money } from '@banyan/kernel';
import { type CommandContext, type Handlers, Jobs, type Preparations, Serves } from '@banyan/messaging';
import type { z } from 'zod';
import { type Booking, book } from './domain/ledger.js';
import {
  type Payment,
  type PaymentEvent,
  answerChallenge,
  cancel,
  capture,
  noPayment,
  open,
  pendingIntents,
  refund,
  remember,
  settle,
} from './domain/payment.js';
import { PaymentProvider } from './payments.provider.js';
import { PaymentStore } from './payments.store.js';

type Ops = Handlers<typeof payments>;
type View = z.output<typeof PaymentView>;

/** The job that brings to an end what is open at the provider. */
export const SETTLE_JOB = 'payments.settle';

@Serves(payments)
export class PaymentService implements Ops {
  constructor(
    private readonly store: PaymentStore,
    private readonly provider: PaymentProvider,
    private readonly jobs: Jobs,
  ) {}

  /** The provider is asked before the transaction; the commands only write down what it said. */
  readonly prepare: Preparations<typeof payments> = {
    authorise: async ({ orderId, method, amount }) => {
      // A known order is not asked for again. It also means that only requests which are on their way while the order
      // is cancelled can reach the provider after the cancellation: the settle job waits for those.
      if (await this.store.ofOrder(orderId)) return { outcome: 'nothing_to_do', providerRef: null };
      return this.provider.authorise({ orderId, token: method, amount });
    },
    capture: async ({ orderId }) => {
      const payment = await this.store.ofOrder(orderId);
      if (payment?.status !== 'authorised' || !payment.providerRef)
        return { outcome: 'nothing_to_do', providerRef: null };
      if (!payment.cancelled)
        return this.provider.capture(payment.providerRef, money(payment.authorised, payment.currency!));
      // Cancelled: nothing more is taken, but what was taken before has to be known, or it is never given back.
      const word = await this.provider.find(orderId);
      return word?.outcome === 'captured' ? word : { outcome: 'nothing_to_do', providerRef: payment.providerRef };
    },
  };

  payment: Ops['payment'] = async ({ id }, { actor }) => {
    const payment = await this.store.find(id);
    const theirs = actor.kind === 'user' && actor.id === payment?.customerId;
    if (!payment || payment.status === 'cancelled' || !(theirs || hasRole(actor, 'staff'))) throw notFound();
    return view(payment);
  };

  authorise: Ops['authorise'] = async ({ orderId, customerId, amount }, ctx) => {
    if (ctx.prepared.outcome !== 'nothing_to_do') {
      const asked = open({ orderId, customerId, amount }, ctx.prepared);
      const begun = await this.begin(asked, ctx);
      if (begun) return { ...view(begun), reason: begun.reason ?? undefined };
    }
    const known = await this.store.ofOrderForUpdate(orderId);
    if (!known) throw new Error(`Order ${orderId} had a payment a moment ago`);
    if (known.cancelled) throw payments.fail('PAYMENT_CANCELLED', 'The order was cancelled before it was paid for');
    return { ...view(known), reason: known.reason ?? undefined };
  };

  capture: Ops['capture'] = async ({ orderId }, ctx) => {
    const payment = await this.store.ofOrderForUpdate(orderId);
    if (!payment) throw notFound();
    return view(
      await this.goOn(
        payment,
        capture(payment, ctx.prepared, () => ctx.newId()),
        ctx,
      ),
    );
  };

  cancel: Ops['cancel'] = async ({ orderId }, ctx) => ({ orderId, status: await this.takeBack(orderId, ctx) });

  /** Writes down that the order's money is to go back, whatever was reached; the settle job asks the provider. */
  async takeBack(orderId: string, ctx: CommandContext): Promise<'pending' | 'done'> {
    let payment = await this.store.ofOrderForUpdate(orderId);
    payment ??= await this.begin(remember(orderId, ctx.newId()), ctx);
    payment ??= await this.store.ofOrderForUpdate(orderId);
    if (!payment) throw new Error(`Order ${orderId} had a payment a moment ago`);
    const after = await this.goOn(
      payment,
      cancel(payment, () => ctx.newId()),
      ctx,
    );
    return pendingIntents(after).length > 0 ? 'pending' : 'done';
  }

  refund: Ops['refund'] = async ({ paymentId, amount, reason }, ctx) => {
    const payment = await this.store.forUpdate(paymentId);
    if (!payment || payment.status === 'cancelled') throw notFound();
    const id = ctx.newId();
    await this.goOn(payment, refund(payment, amount, reason, id), ctx);
    return { id, paymentId, amount, reason, status: 'pending', createdAt: ctx.now.toISOString() };
  };

  settle: Ops['settle'] = async ({ paymentId, ...answer }, ctx) => {
    const payment = await this.store.forUpdate(paymentId);
    if (!payment) throw notFound();
    const events = settle(payment, answer);
    await this.goOn(payment, events, ctx);
    return { settled: events.length > 0 };
  };

  recordProviderEvent: Ops['recordProviderEvent'] = async ({ providerRef, type, reason }, ctx) => {
    // A provider may tell before our own request to it has come back; the settle job asks it later on.
    const payment = await this.store.ofProviderRefForUpdate(providerRef);
    if (!payment) return { recorded: false };
    const events = answerChallenge(payment, {
      authorised: type === 'payment.authorised',
      reason: reason ?? 'declined',
    });
    await this.goOn(payment, events, ctx);
    return { recorded: events.length > 0 };
  };

  /** Undefined, and nothing written, when the order has a payment already. */
  private async begin(events: PaymentEvent[], ctx: CommandContext): Promise<Payment | undefined> {
    const at = ctx.now.toISOString();
    const booking = book(noPayment(ctx.newId(), at), events, at, () => ctx.newId());
    if (!(await this.store.begin(booking))) return undefined;
    await this.tell(booking, ctx);
    return booking.after;
  }

  private async goOn(payment: Payment, events: PaymentEvent[], ctx: CommandContext): Promise<Payment> {
    if (events.length === 0) return payment;
    const booking = book(payment, events, ctx.now.toISOString(), () => ctx.newId());
    await this.store.goOn(booking);
    await this.tell(booking, ctx);
    return booking.after;
  }

  /** Publishes what others may know, and wakes the job when the provider is to be asked. */
  private async tell({ before, after, events }: Booking, ctx: CommandContext): Promise<void> {
    const { id: paymentId, orderId } = after;
    const happened = (...types: PaymentEvent['type'][]) => events.some(({ event }) => types.includes(event.type));
    if (happened('authorised'))
      ctx.emit(payments.events.PaymentAuthorised, paymentId, {
        paymentId,
        orderId,
        amount: money(after.authorised, after.currency!),
      });
    if (happened('authorised') && before.version > 0)
      ctx.emit(payments.events.ChallengePassed, paymentId, { paymentId, orderId });
    if (happened('declined'))
      ctx.emit(payments.events.PaymentDeclined, paymentId, { paymentId, orderId, reason: after.reason ?? 'declined' });
    if (happened('captured', 'voided', 'refunded') && after.status !== 'cancelled') {
      const { status, captured, refunded } = view(after);
      ctx.emit(payments.events.PaymentChanged, paymentId, { paymentId, orderId, status, captured, refunded });
    }
    if (happened('voidRequested', 'refundRequested')) await this.jobs.wake(SETTLE_JOB, { id: paymentId, at: ctx.now });
  }
}

const notFound = () => payments.fail('PAYMENT_NOT_FOUND', 'There is no such payment');

/** A payment as others see it. Those that were cancelled before they began are never shown. */
function view(payment: Payment): View {
  const { id, orderId, status, amount, captured, refunded, currency, actionUrl } = payment;
  if (status === 'cancelled' || currency === null) throw notFound();
  return {
    id,
    orderId,
    status,
    amount: money(amount, currency),
    captured: money(captured, currency),
    refunded: money(refunded, currency),
    ...(actionUrl !== null && { actionUrl }),
  };
}
