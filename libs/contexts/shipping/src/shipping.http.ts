import { Controller, Get, Param, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Instant, Shipment, shipping } from '@banyan/contracts';
import { Id } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';
import { Public, SignedBody } from '@banyan/platform/auth';
import { Answers } from '@banyan/platform/http';
import { z } from 'zod';

const IdParam = z.strictObject({ id: Id });

/** What the carrier tells. It may add fields; ours are these. */
const CarrierEvent = z.object({
  eventId: z.string().min(1).max(200),
  trackingNumber: z.string().min(1).max(100),
  status: z.enum(['dispatched', 'delivered']),
  at: Instant,
});

@ApiTags('shipping')
@Controller('v1/shipments')
export class ShipmentsController {
  constructor(@InjectClient(shipping) private readonly client: Client<typeof shipping>) {}

  @Get(':id')
  @Answers(200, Shipment)
  shipment(@Param({ schema: IdParam }) { id }: z.output<typeof IdParam>) {
    return this.client.shipment({ id });
  }
}

@ApiTags('shipping')
@Controller('v1/webhooks/carrier')
export class CarrierWebhookController {
  constructor(@InjectClient(shipping) private readonly client: Client<typeof shipping>) {}

  @Post()
  @Public()
  @Answers(204)
  async hook(
    @SignedBody(CarrierEvent, (config) => config.shipping.carrierWebhookSecret) event: z.output<typeof CarrierEvent>,
  ): Promise<void> {
    await this.client.recordCarrierEvent(event, { idempotencyKey: event.eventId });
  }
}
