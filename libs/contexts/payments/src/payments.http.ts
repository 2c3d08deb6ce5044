import { Body, Controller, Get, Param, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Payment, Refund, payments } from '@banyan/contracts';
import { Id, Money } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';
import { Public, Roles, SignedBody } from '@banyan/platform/auth';
import { Answers, IdempotencyKey } from '@banyan/platform/http';
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
  constructor(@InjectClient(payments) private readonly client: Client<typeof payments>) {}

  @Post()
  @Public()
  @Answers(204)
  async hook(
    @SignedBody(ProviderEvent, (config) => config.payments.pspWebhookSecret) event: z.output<typeof ProviderEvent>,
  ): Promise<void> {
    await this.client.recordProviderEvent(event, { idempotencyKey: event.eventId });
  }
}
