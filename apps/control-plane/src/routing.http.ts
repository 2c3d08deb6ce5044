import { Body, Controller, Get, Post, Res } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Report } from '@banyan/extraction/parity';
import { Answers } from '@banyan/platform/http';
import type { FastifyReply } from 'fastify';
import type { z } from 'zod';
import { For } from './access.js';
import { ControlPlane } from './control-plane.service.js';
import { EventStream } from './event-stream.js';
import { Reports } from './reports.js';
import { RoutingTable } from './routing-table.js';

/** What routers and their parity mirrors talk to. */
@ApiTags('routers')
@For('client')
@Controller('control')
export class RoutingController {
  constructor(
    private readonly control: ControlPlane,
    private readonly table: RoutingTable,
    private readonly reports: Reports,
  ) {}

  /** The whole routing state at once, and again with each change. */
  @Get('routing')
  @Answers(200)
  routing(@Res() reply: FastifyReply): void {
    this.control.mustLead();
    const stream = new EventStream(reply);
    const current = this.table.current();
    if (current) stream.send('routing', current);
    stream.onEnd(this.table.onChange((routing) => stream.send('routing', routing)));
    stream.onEnd(this.control.onStandBy(() => stream.end()));
  }

  @Post('reports')
  @Answers(204)
  report(@Body({ schema: Report }) report: z.output<typeof Report>): void {
    this.control.mustLead();
    this.reports.take(report);
  }
}
