import { Body, Controller, Get, Param, Patch, Post, Query, Res } from '@nestjs/common';
import { ApiOperation, ApiTags } from '@nestjs/swagger';
import { NewProduct, Product, ProductChanges, catalog } from '@banyan/contracts';
import { Id, anonymous } from '@banyan/kernel';
import { type Client, InjectClient, currentScope, newScope, runInScope } from '@banyan/messaging';
import { Public, Roles } from '@banyan/platform/auth';
import { Answers, IfMatch, NdjsonBody, type NdjsonLine, Page, PageQuery } from '@banyan/platform/http';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { ImportSummary, importLines } from './catalog.import.js';

const ProductsQuery = PageQuery.extend({
  q: z.string().trim().max(200).optional().describe('Words, the start of a word, "phrases", or, -not'),
  category: z.string().trim().min(1).max(100).optional(),
});
const IdParam = z.strictObject({ id: Id });

@ApiTags('catalog')
@Controller('v1/products')
export class ProductsController {
  constructor(@InjectClient(catalog) private readonly client: Client<typeof catalog>) {}

  @Get()
  @Public()
  @Answers(200, Page(Product))
  @ApiOperation({ summary: 'Products, best match first when q is given' })
  products(@Query({ schema: ProductsQuery }) query: z.output<typeof ProductsQuery>) {
    return this.client.products(query);
  }

  @Get(':id')
  @Public()
  @Answers(200, Product, { etag: true })
  product(@Param({ schema: IdParam }) { id }: z.output<typeof IdParam>) {
    return this.client.product({ id });
  }

  @Post()
  @Roles('staff')
  @Answers(201, Product, { etag: true })
  async create(
    @Body({ schema: NewProduct }) body: z.output<typeof NewProduct>,
    @Res({ passthrough: true }) reply: FastifyReply,
  ) {
    const product = await this.client.createProduct(body);
    void reply.header('location', `/v1/products/${product.id}`);
    return product;
  }

  @Patch(':id')
  @Roles('staff')
  @Answers(200, Product, { etag: true })
  update(
    @Param({ schema: IdParam }) { id }: z.output<typeof IdParam>,
    @IfMatch() expectedVersion: number,
    @Body({ schema: ProductChanges }) changes: z.output<typeof ProductChanges>,
  ) {
    return this.client.updateProduct({ id, expectedVersion, changes });
  }

  @Post('import')
  @Roles('staff')
  @Answers(200, ImportSummary)
  @ApiOperation({
    summary: 'Creates or updates products by SKU',
    description:
      'One product a line, of any number of lines. A broken line is reported and does not stop the rest; sending the same lines again changes nothing.',
  })
  import(@NdjsonBody(NewProduct) lines: AsyncIterable<NdjsonLine<z.output<typeof NewProduct>>>) {
    // An upload may take longer than a request should: every batch has its own deadline.
    const scope = { ...(currentScope() ?? newScope(anonymous)), deadline: undefined };
    return importLines(lines, (items) => runInScope(scope, () => this.client.importProducts({ items })));
  }
}
