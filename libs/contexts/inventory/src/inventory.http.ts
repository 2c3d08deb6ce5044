import { Body, Controller, Get, Param, Put } from '@nestjs/common';
import { ApiOperation, ApiTags } from '@nestjs/swagger';
import { Sku, Stock, inventory } from '@banyan/contracts';
import { type Client, InjectClient } from '@banyan/messaging';
import { Public, Roles } from '@banyan/platform/auth';
import { Answers, IdempotencyKey } from '@banyan/platform/http';
import { z } from 'zod';

const SkuParam = z.strictObject({ sku: Sku });
const StockCount = z
  .strictObject({
    onHand: inventory.commands.setStock.input.shape.onHand.describe('Pieces in the building, held ones included'),
  })
  .meta({ id: 'StockCount' });

@ApiTags('inventory')
@Controller('v1/stock')
export class StockController {
  constructor(@InjectClient(inventory) private readonly client: Client<typeof inventory>) {}

  @Get(':sku')
  @Public()
  @Answers(200, Stock)
  stockOf(@Param({ schema: SkuParam }) { sku }: z.output<typeof SkuParam>) {
    return this.client.stockOf({ sku });
  }

  @Put(':sku')
  @Roles('staff')
  @Answers(200, Stock)
  @ApiOperation({
    summary: 'Sets what is on hand; below what is held for orders: 409',
    description: 'With an Idempotency-Key it may be sent again safely: a first try that is late does nothing any more.',
  })
  setStock(
    @Param({ schema: SkuParam }) { sku }: z.output<typeof SkuParam>,
    @Body({ schema: StockCount }) { onHand }: z.output<typeof StockCount>,
    @IdempotencyKey({ optional: true }) idempotencyKey: string | undefined,
  ) {
    return this.client.setStock({ sku, onHand }, { idempotencyKey });
  }
}
