import { Injectable } from '@nestjs/common';
import { shipping } from '@banyan/contracts';
import { type Client, InjectClient, Job, type JobContext } from '@banyan/messaging';
import { Config } from '@banyan/platform/config';
import { ShippingStore } from './shipping.store.js';

/* Moved per round. Whatever is left is due again a second later. */
const batch = 200;
/* Commands at once: a carrier must not take every connection that the customers' requests need. */
const lanes = 4;

/** Stands in for a carrier: collects and delivers after fixed times. Both times 0: a real carrier tells by webhook. */
@Injectable()
export class SimulatedCarrier {
  constructor(
    private readonly store: ShippingStore,
    private readonly config: Config,
    @InjectClient(shipping) private readonly client: Client<typeof shipping>,
  ) {}

  @Job({ name: 'shipping.simulated-carrier', everyMs: 1000 })
  async work({ now }: JobContext): Promise<void> {
    const { dispatchMs, deliveryMs } = this.config.shipping;
    if (dispatchMs === 0 && deliveryMs === 0) return;
    const before = (ms: number) => (ms > 0 ? new Date(now.getTime() - ms) : new Date(0));
    const due = await this.store.underWay(before(dispatchMs), before(deliveryMs), batch);
    const work = Array.from({ length: lanes }, async () => {
      for (let row = due.pop(); row; row = due.pop()) {
        const status = row.status === 'pending' ? 'dispatched' : 'delivered';
        const trackingNumber = row.trackingNumber!;
        await this.client.recordCarrierEvent({
          eventId: `simulated:${trackingNumber}:${status}`,
          trackingNumber,
          status,
          at: now.toISOString(),
        });
      }
    });
    await Promise.all(work);
  }
}
