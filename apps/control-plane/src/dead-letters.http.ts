import { Body, Controller, Get, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { deadLetters, redrive } from '@banyan/messaging';
import { Database } from '@banyan/platform/database';
import { Answers } from '@banyan/platform/http';
import { z } from 'zod';
import { ControlPlane } from './control-plane.service.js';
import { ControlStore } from './control-store.js';
import { OwnerDatabases } from './owner-databases.js';

const DeadLetter = z.strictObject({
  context: z.string(),
  eventId: z.string(),
  subscriber: z.string(),
  type: z.string(),
  aggregate: z.string(),
  attempts: z.number(),
  error: z.string().nullable(),
  occurredAt: z.string(),
});
const DeadLetters = z.strictObject({ items: z.array(DeadLetter) });
const RedriveBody = z.strictObject({ context: z.string(), ids: z.array(z.uuid()).min(1).max(100).optional() });
const Redriven = z.strictObject({ redriven: z.int() });

/** Events whose delivery was given up, in the database of whoever owns their context. */
@ApiTags('dead letters')
@Controller('control/dead-letters')
export class DeadLettersController {
  constructor(
    private readonly control: ControlPlane,
    private readonly store: ControlStore,
    private readonly owners: OwnerDatabases,
  ) {}

  @Get()
  @Answers(200, DeadLetters)
  async list() {
    const all = await Promise.all(this.control.all().map(({ context }) => this.inOwner(context, deadLetters)));
    return { items: all.flat() };
  }

  @Post('redrive')
  @Answers(200, Redriven)
  async redrive(@Body({ schema: RedriveBody }) { context, ids }: z.output<typeof RedriveBody>) {
    this.control.loop(context);
    const redriven = await this.inOwner(context, async (database) => {
      if (!ids) return redrive(database);
      let count = 0;
      for (const id of ids) count += await redrive(database, id);
      return count;
    });
    await this.store.audit({
      actor: 'operator',
      action: 'redrive',
      context,
      detail: { ids: ids ?? 'all', redriven },
      reason: null,
    });
    return { redriven };
  }

  private async inOwner<T>(context: string, work: (database: Database) => Promise<T>): Promise<T> {
    const owner = (await this.control.loop(context).status()).owner ?? 'monolith';
    const url = this.owners.url(context, owner);
    const database = new Database({ context, url, max: 1, connectTimeoutMs: 2_000, statementTimeoutMs: 5_000 });
    try {
      return await work(database);
    } finally {
      await database.close();
    }
  }
}
