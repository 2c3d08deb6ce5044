import { Module } from '@nestjs/common';
import { CartController } from './cart.http.js';
import { CartStore } from './cart.store.js';
import { Checkout } from './checkout.saga.js';
import { OrderMoves } from './order-moves.js';
import { OrderWatch } from './order-watch.js';
import { OrdersEvents } from './orders.events.js';
import { OrdersController } from './orders.http.js';
import { OrdersService } from './orders.service.js';
import { OrdersStore } from './orders.store.js';

@Module({
  controllers: [CartController, OrdersController],
  providers: [OrdersService, OrdersEvents, Checkout, OrderMoves, OrderWatch, OrdersStore, CartStore],
})
export class OrdersModule {}
