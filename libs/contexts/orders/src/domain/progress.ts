import { PaymentStatus as PaymentStatusSchema, type ShipmentStatus as ShipmentStatusSchema } from '@banyan/contracts';
import type { z } from 'zod';

export type PaymentStatus = z.output<typeof PaymentStatusSchema>;
export type ShipmentStatus = z.output<typeof ShipmentStatusSchema>;

/*
 * The read model hears of a payment or shipment from two sides that do not wait for each other: the saga, and the
 * other context's events. So the saga's news are only shown while nothing later is shown. What only events tell comes
 * in order and is always shown: a refund that failed takes a payment back to captured.
 */
const every: PaymentStatus[] = PaymentStatusSchema.options;
const paymentBefore: Record<PaymentStatus, PaymentStatus[]> = {
  requires_action: [],
  authorised: ['requires_action'],
  declined: ['requires_action'],
  captured: every,
  partially_refunded: every,
  refunded: every,
  voided: every,
};

const shipmentBefore: Record<ShipmentStatus, ShipmentStatus[]> = {
  pending: [],
  dispatched: ['pending'],
  delivered: ['pending', 'dispatched'],
  cancelled: ['pending'],
};

/** The statuses that this one may be shown instead of. */
export const paymentStatusesBefore = (status: PaymentStatus): PaymentStatus[] => paymentBefore[status];

/** The statuses that this one may be shown instead of. */
export const shipmentStatusesBefore = (status: ShipmentStatus): ShipmentStatus[] => shipmentBefore[status];
