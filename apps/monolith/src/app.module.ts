import { Module } from '@nestjs/common';
import { CatalogModule } from '@banyan/catalog';
import { IdentityModule } from '@banyan/identity';
import { InventoryModule } from '@banyan/inventory';
import { NotificationsModule } from '@banyan/notifications';
import { OrdersModule } from '@banyan/orders';
import { PaymentsModule } from '@banyan/payments';
import { ShippingModule } from '@banyan/shipping';
import { DemoShop } from './demo-shop.js';

/** Every context in one process. */
@Module({
  imports: [
    IdentityModule,
    CatalogModule,
    InventoryModule,
    OrdersModule,
    PaymentsModule,
    ShippingModule,
    NotificationsModule,
  ],
  providers: [DemoShop],
})
export class AppModule {}
