import { Module } from '@nestjs/common';
import { InventoryEvents } from './inventory.events.js';
import { StockController } from './inventory.http.js';
import { ReservationExpiry } from './inventory.jobs.js';
import { InventoryService } from './inventory.service.js';
import { InventoryStore } from './inventory.store.js';

/** Stock and reservations. Clients, config and the database are provided globally. */
@Module({
  controllers: [StockController],
  providers: [InventoryService, InventoryStore, InventoryEvents, ReservationExpiry],
})
export class InventoryModule {}
