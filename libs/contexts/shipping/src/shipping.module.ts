import { Module } from '@nestjs/common';
import { SimulatedCarrier } from './shipping.carrier.js';
import { ShippingEvents } from './shipping.events.js';
import { CarrierWebhookController, ShipmentsController } from './shipping.http.js';
import { ShippingService } from './shipping.service.js';
import { ShippingStore } from './shipping.store.js';

@Module({
  controllers: [ShipmentsController, CarrierWebhookController],
  providers: [ShippingService, ShippingStore, ShippingEvents, SimulatedCarrier],
})
export class ShippingModule {}
