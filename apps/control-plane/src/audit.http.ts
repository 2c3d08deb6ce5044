import { Controller, Get, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Answers, Page, PageQuery, decodeCursor, encodeCursor } from '@banyan/platform/http';
import { z } from 'zod';
import { ControlStore } from './control-store.js';

const AuditLine = z.strictObject({
  id: z.int(),
  at: z.string(),
  actor: z.string(),
  action: z.string(),
  context: z.string().nullable(),
  detail: z.unknown(),
  reason: z.string().nullable(),
});

@ApiTags('audit')
@Controller('control/audit')
export class AuditController {
  constructor(private readonly store: ControlStore) {}

  /** Every change, the newest first. */
  @Get()
  @Answers(200, Page(AuditLine))
  async lines(@Query({ schema: PageQuery }) { limit, cursor }: z.output<typeof PageQuery>) {
    const [before] = decodeCursor(cursor, z.tuple([z.int()])) ?? [];
    const items = await this.store.auditLog(limit, before);
    const last = items.length === limit ? items.at(-1) : undefined;
    return { items, nextCursor: last ? encodeCursor([last.id]) : null };
  }
}
