import { Body, Controller, Delete, Get, Param, Put } from '@nestjs/common';
import { ApiOperation, ApiTags } from '@nestjs/swagger';
import { Cart, Quantity, Sku, orders } from '@banyan/contracts';
import { type Client, InjectClient } from '@banyan/messaging';
import { Answers, IdempotencyKey } from '@banyan/platform/http';
import { z } from 'zod';

type OrdersClient = Client<typeof orders>;

const SkuParam = z.strictObject({ sku: Sku });
const CartItemBody = z.strictObject({ quantity: Quantity });

@ApiTags('orders')
@Controller('v1/cart')
export class CartController {
  constructor(@InjectClient(orders) private readonly orders: OrdersClient) {}

  @Get()
  @ApiOperation({ summary: 'The cart, at the prices of this moment' })
  @Answers(200, Cart)
  cart() {
    return this.orders.cart({});
  }

  @Put('items/:sku')
  @ApiOperation({
    summary: 'Put a product into the cart, or change how many of it',
    description: 'With an Idempotency-Key it may be sent again safely: a first try that is late does nothing any more.',
  })
  @Answers(200, Cart)
  setItem(
    @Param({ schema: SkuParam }) { sku }: z.output<typeof SkuParam>,
    @Body({ schema: CartItemBody }) { quantity }: z.output<typeof CartItemBody>,
    @IdempotencyKey({ optional: true }) idempotencyKey: string | undefined,
  ) {
    return this.orders.setCartItem({ sku, quantity }, { idempotencyKey });
  }

  @Delete('items/:sku')
  @ApiOperation({ summary: 'Take a product out of the cart; it may be gone already' })
  @Answers(200, Cart)
  removeItem(@Param({ schema: SkuParam }) { sku }: z.output<typeof SkuParam>) {
    return this.orders.removeCartItem({ sku });
  }
}
