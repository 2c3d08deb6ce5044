import { Injectable } from '@nestjs/common';
import { inventory } from '@banyan/contracts';
import { type Client, InjectClient, Job, type JobContext } from '@banyan/messaging';

/** Orders looked up at a time. */
const batchSize = 200;

/** Frees goods that were held and neither sold nor released in time. */
@Injectable()
export class ReservationExpiry {
  constructor(@InjectClient(inventory) private readonly client: Client<typeof inventory>) {}

  @Job({ name: 'inventory.expire-reservations', everyMs: 15_000 })
  async expireOverdue({ now }: JobContext): Promise<void> {
    for (;;) {
      const { orderIds } = await this.client.overdueReservations({ at: now.toISOString(), limit: batchSize });
      let expired = 0;
      for (const orderId of orderIds) expired += Number((await this.client.expire({ orderId })).expired);
      // Without progress the rest is left to the next run: another instance may be at the same orders.
      if (orderIds.length < batchSize || expired === 0) return;
    }
  }
}
