import { Controller, Get, Headers, Param, Post, RawBody } from '@nestjs/common';
import { ApiBody, ApiHeader, ApiTags } from '@nestjs/swagger';
import { Instant, Shipment, shipping } from '@banyan/contracts';
import { Id } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';
import { Public, SIGNATURE_HEADER, verifyWebhook } from '@banyan/platform/auth';
import { Config } from '@banyan/platform/config';
import { Answers, fail, faultsOf } from '@banyan/platform/http';
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
  constructor(
    @InjectClient(shipping) private readonly client: Client<typeof shipping>,
    private readonly config: Config,
  ) {}

  @Post()
  @Public()
  @ApiHeader({
    name: SIGNATURE_HEADER,
    required: true,
    description: 't=<unix seconds>,v1=<hex HMAC-SHA-256 of "t.body">',
  })
  @ApiBody({ schema: z.toJSONSchema(CarrierEvent, { target: 'draft-2020-12', io: 'input' }) as object })
  @Answers(204)
  async hook(@RawBody() raw: Buffer, @Headers('banyan-signature') signature: string | undefined): Promise<void> {
    const secret = this.config.shipping.carrierWebhookSecret;
    if (!secret) throw fail('SIGNATURE_INVALID', 'No CARRIER_WEBHOOK_SECRET is set, so no signature can hold');
    verifyWebhook(secret, signature, raw);
    const { success, data, error } = CarrierEvent.safeParse(JSON.parse(raw.toString()));
    if (!success) throw fail('INPUT_INVALID', 'The body is invalid', { errors: faultsOf(error.issues) });
    await this.client.recordCarrierEvent(data, { idempotencyKey: data.eventId });
  }
}
