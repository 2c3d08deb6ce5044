import { Body, Controller, Get, Headers, Param, Post, Query, Res } from '@nestjs/common';
import { ApiHeader, ApiOperation, ApiTags } from '@nestjs/swagger';
import { Address, Order, PaymentMethod, orders } from '@banyan/contracts';
import { Id } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';
import { Answers, IdempotencyKey, Page, PageQuery } from '@banyan/platform/http';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { OrderWatch } from './order-watch.js';
import { preferredWait } from './prefer.js';

type OrdersClient = Client<typeof orders>;

const OrderParam = z.strictObject({ id: Id });
const PlaceOrderBody = z.strictObject({ shippingAddress: Address, paymentMethod: PaymentMethod });

@ApiTags('orders')
@Controller('v1/orders')
export class OrdersController {
  constructor(
    @InjectClient(orders) private readonly orders: OrdersClient,
    private readonly watch: OrderWatch,
  ) {}

  @Post()
  @ApiOperation({
    summary: 'Order what is in the cart',
    description: 'The order starts as `pending`. Stock and payment are settled afterwards: follow Location to see how.',
  })
  @Answers(201, Order)
  async place(
    @Body({ schema: PlaceOrderBody }) body: z.output<typeof PlaceOrderBody>,
    @IdempotencyKey() idempotencyKey: string,
    @Res({ passthrough: true }) reply: FastifyReply,
  ) {
    const order = await this.orders.placeOrder(body, { idempotencyKey });
    void reply.header('location', `/v1/orders/${order.id}`);
    return order;
  }

  @Get()
  @ApiOperation({ summary: 'Your orders, newest first' })
  @Answers(200, Page(Order))
  list(@Query({ schema: PageQuery }) query: z.output<typeof PageQuery>) {
    return this.orders.orders(query);
  }

  @Get(':id')
  @ApiOperation({ summary: 'One order; staff may read any' })
  @ApiHeader({
    name: 'Prefer',
    required: false,
    description:
      '`wait=N` (RFC 7240), at most 10 seconds: answers as soon as the order is no longer pending, or when the time is ' +
      'over. Preference-Applied says how long it would have waited.',
    example: 'wait=5',
  })
  @Answers(200, Order)
  async one(
    @Param({ schema: OrderParam }) { id }: z.output<typeof OrderParam>,
    @Headers('prefer') prefer: string | undefined,
    @Res({ passthrough: true }) reply: FastifyReply,
  ) {
    const read = () => this.orders.order({ id });
    const seconds = preferredWait(prefer);
    if (seconds === undefined) return read();
    const isDecided = (order: z.output<typeof Order>) => order.status !== 'pending';
    // The reply's end, not the request's: a request also closes when all of it has been read.
    const gone = new AbortController();
    reply.raw.once('close', () => gone.abort());
    const order = await this.watch.until(id, read, isDecided, seconds * 1000, gone.signal);
    void reply.header('preference-applied', `wait=${seconds}`);
    return order;
  }

  @Post(':id/cancel')
  @ApiOperation({ summary: 'Cancel an order that has not been shipped; again: the same answer' })
  @Answers(200, Order)
  cancel(@Param({ schema: OrderParam }) { id }: z.output<typeof OrderParam>) {
    return this.orders.cancelOrder({ id });
  }
}
