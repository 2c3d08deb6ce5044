import { PaymentStatus, ShipmentStatus } from '@banyan/contracts';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { paymentStatusesBefore, shipmentStatusesBefore } from './progress.js';

/** What is shown after news that came in this order, by the rule of the read model. */
const shownAfter = <S extends string>(news: S[], before: (status: S) => S[]): S | undefined =>
  news.reduce<S | undefined>(
    (shown, status) => (shown === undefined || before(status).includes(shown) ? status : shown),
    undefined,
  );

describe('The read model', () => {
  it.each<{ saga: PaymentStatus[]; events: PaymentStatus[] }>([
    { saga: ['requires_action', 'authorised'], events: ['captured', 'partially_refunded', 'refunded'] },
    { saga: ['authorised'], events: ['captured', 'refunded', 'captured'] },
    { saga: ['requires_action'], events: ['declined'] },
    { saga: ['requires_action', 'authorised'], events: ['voided'] },
  ])('shows what the events said last, however the saga’s news come in between: $events', ({ saga, events }) => {
    const turns = fc.shuffledSubarray([...saga.map(() => saga), ...events.map(() => events)], {
      minLength: saga.length + events.length,
    });
    fc.assert(
      fc.property(turns, (turns) => {
        const queues = new Map([
          [saga, [...saga]],
          [events, [...events]],
        ]);
        const news = turns.map((turn) => queues.get(turn)!.shift()!);
        expect(shownAfter(news, paymentStatusesBefore)).toBe(events.at(-1));
      }),
    );
  });

  it.each([[['pending', 'dispatched', 'delivered']], [['pending', 'cancelled']]] as const)(
    'shows the last of a shipment that went %s',
    (life) => {
      fc.assert(
        fc.property(fc.shuffledSubarray([...life, ...life], { minLength: 2 * life.length }), (news) => {
          expect(shownAfter<ShipmentStatus>(news, shipmentStatusesBefore)).toBe(life.at(-1));
        }),
      );
    },
  );

  it('knows every status', () => {
    for (const status of PaymentStatus.options) expect(paymentStatusesBefore(status)).toBeInstanceOf(Array);
    for (const status of ShipmentStatus.options) expect(shipmentStatusesBefore(status)).toBeInstanceOf(Array);
  });
});

type PaymentStatus = (typeof PaymentStatus.options)[number];
type ShipmentStatus = (typeof ShipmentStatus.options)[number];
