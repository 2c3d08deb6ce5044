import { Module } from '@nestjs/common';
import { PaymentEvents } from './payments.events.js';
import { PaymentsController, PspWebhookController } from './payments.http.js';
import { PaymentProvider } from './payments.provider.js';
import { PspClient } from './payments.psp.js';
import { PaymentService } from './payments.service.js';
import { Settlement } from './payments.settlement.js';
import { PaymentStore } from './payments.store.js';

@Module({
  controllers: [PaymentsController, PspWebhookController],
  providers: [
    PaymentService,
    PaymentStore,
    PaymentEvents,
    Settlement,
    { provide: PaymentProvider, useClass: PspClient },
  ],
})
export class PaymentsModule {}
