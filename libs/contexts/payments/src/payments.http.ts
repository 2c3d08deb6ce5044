import { Body, Controller, Get, Headers, Param, Post, RawBody } from '@nestjs/common';
import { ApiBody, ApiHeader, ApiTags } from '@nestjs/swagger';
import { Payment, Refund, payments } from '@banyan/contracts';
import { Id, Money } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';
import { Public, Roles, SIGNATURE_HEADER, verifyWebhook } from '@banyan/platform/auth';
import { Config } from '@banyan/platform/config';
import { Answers, IdempotencyKey, fail, faultsOf } from '@banyan/platform/http';
import { z } from 'zod';

const IdParam = z.strictObject({ id: Id });
const NewRefund = z
  .strictObject({
    amount: Money.refine(({ amount }) => amount > 0, 'must be positive'),
    reason: z.string().trim().min(1).max(500),
  })
  .meta({ id: 'NewRefund' });

/** What the provider tells. It may add fields; ours are these. */
const ProviderEvent = z.object({
  eventId: z.string().min(1).max(200),
  type: z.enum(['payment.authorised', 'payment.declined']),
  providerRef: z.string(),
  reason: z.string().optional(),
});

@ApiTags('payments')
@Controller('v1/payments')
export class PaymentsController {
  constructor(@InjectClient(payments) private readonly client: Client<typeof payments>) {}

  @Get(':id')
  @Answers(200, Payment)
  payment(@Param({ schema: IdParam }) { id }: z.output<typeof IdParam>) {
    return this.client.payment({ id });
  }

  @Post(':id/refunds')
  @Roles('staff')
  @Answers(201, Refund)
  refund(
    @Param({ schema: IdParam }) { id }: z.output<typeof IdParam>,
    @IdempotencyKey() idempotencyKey: string,
    @Body({ schema: NewRefund }) body: z.output<typeof NewRefund>,
  ) {
    return this.client.refund({ paymentId: id, ...body }, { idempotencyKey });
  }
}

@ApiTags('payments')
@Controller('v1/webhooks/psp')
export class PspWebhookController {
  constructor(
    @InjectClient(payments) private readonly client: Client<typeof payments>,
    private readonly config: Config,
  ) {}

  @Post()
  @Public()
  @ApiHeader({
    name: SIGNATURE_HEADER,
    required: true,
    description: 't=<unix seconds>,v1=<hex HMAC-SHA-256 of "t.body">',
  })
  @ApiBody({ schema: z.toJSONSchema(ProviderEvent, { target: 'draft-2020-12', io: 'input' }) as object })
  @Answers(204)
  async hook(@RawBody() raw: Buffer, @Headers('banyan-signature') signature: string | undefined): Promise<void> {
    const secret = this.config.payments.pspWebhookSecret;
    if (!secret) throw fail('SIGNATURE_INVALID', 'No PSP_WEBHOOK_SECRET is set, so no signature can hold');
    verifyWebhook(secret, signature, raw);
    const { success, data, error } = ProviderEvent.safeParse(JSON.parse(raw.toString()));
    if (!success) throw fail('INPUT_INVALID', 'The body is invalid', { errors: faultsOf(error.issues) });
    await this.client.recordProviderEvent(data, { idempotencyKey: data.eventId });
  }
}
