import { Body, Controller, Get, Param, Post, Res } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { ContextStatus, GateReading, Stage, stages } from '@banyan/extraction';
import { Divergence } from '@banyan/extraction/parity';
import { DomainError } from '@banyan/kernel';
import { Answers, fail } from '@banyan/platform/http';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { ControlPlane } from './control-plane.service.js';
import { ControlStore } from './control-store.js';
import { EventStream } from './event-stream.js';
import { FlagStore } from './flags/index.js';
import { Reports } from './reports.js';

/** Who holds the one operator token. */
const ACTOR = 'operator';

const OfContext = z.strictObject({ context: z.string() });
const OfDivergence = OfContext.extend({ id: z.string() });
const Reason = z.string().trim().min(1).max(500);
const AskedStage = z.enum(stages, { error: `is no stage: take one of ${stages.join(', ')}` });
const TargetBody = z.strictObject({
  stage: AskedStage,
  percent: z.int().min(0).max(100).optional(),
  force: z.boolean().default(false),
  reason: Reason.optional(),
});
const RollbackBody = z.strictObject({ to: AskedStage.default('monolith'), reason: Reason.optional() });
const FreezeBody = z.strictObject({ frozen: z.boolean(), reason: Reason.optional() });
const AcknowledgeBody = z.strictObject({ reason: Reason });

const Statuses = z.strictObject({ items: z.array(ContextStatus) });
const Divergences = z.strictObject({ items: z.array(Divergence) });
const Evidence = z.strictObject({
  items: z.array(
    z.strictObject({ at: z.string(), from: Stage, to: Stage, gates: z.array(GateReading), forced: z.boolean() }),
  ),
});

@ApiTags('contexts')
@Controller('control')
export class ContextsController {
  constructor(
    private readonly control: ControlPlane,
    private readonly store: ControlStore,
    private readonly reports: Reports,
    private readonly flags: FlagStore,
  ) {}

  @Get('contexts')
  @Answers(200, Statuses)
  async contexts() {
    return { items: await Promise.all(this.control.all().map((loop) => loop.status())) };
  }

  @Get('contexts/:context')
  @Answers(200, ContextStatus)
  one(@Param({ schema: OfContext }) { context }: z.output<typeof OfContext>) {
    return this.control.loop(context).status();
  }

  @Get('contexts/:context/divergences')
  @Answers(200, Divergences)
  async divergences(@Param({ schema: OfContext }) { context }: z.output<typeof OfContext>) {
    const { since } = this.control.loop(context).stage();
    return { items: await this.reports.divergences(context, since) };
  }

  @Post('contexts/:context/divergences/:id/acknowledge')
  @Answers(200, Divergence)
  async acknowledge(
    @Param({ schema: OfDivergence }) { context, id }: z.output<typeof OfDivergence>,
    @Body({ schema: AcknowledgeBody }) { reason }: z.output<typeof AcknowledgeBody>,
  ) {
    const { since } = this.control.loop(context).stage();
    const known = await this.reports.divergences(context, since);
    if (!known.some((each) => each.id === id))
      throw new DomainError(
        'DIVERGENCE_UNKNOWN',
        'not_found',
        `There is no divergence ${id} of ${context}. GET /control/contexts/${context}/divergences lists them`,
      );
    await this.reports.acknowledge(context, id, ACTOR, reason);
    await this.store.audit({ actor: ACTOR, action: 'acknowledge', context, detail: { divergence: id }, reason });
    const after = await this.reports.divergences(context, since);
    return after.find((each) => each.id === id)!;
  }

  @Get('contexts/:context/evidence')
  @Answers(200, Evidence)
  async evidence(@Param({ schema: OfContext }) { context }: z.output<typeof OfContext>) {
    this.control.loop(context);
    return { items: await this.store.evidence(context) };
  }

  @Post('contexts/:context/target')
  @Answers(202, ContextStatus)
  target(
    @Param({ schema: OfContext }) { context }: z.output<typeof OfContext>,
    @Body({ schema: TargetBody }) { stage, percent, force, reason }: z.output<typeof TargetBody>,
  ) {
    return this.aim(context, { stage, percent, force, reason });
  }

  @Post('contexts/:context/rollback')
  @Answers(202, ContextStatus)
  rollback(
    @Param({ schema: OfContext }) { context }: z.output<typeof OfContext>,
    @Body({ schema: RollbackBody }) { to, reason }: z.output<typeof RollbackBody>,
  ) {
    const { stage, target } = this.control.loop(context).stage();
    const furthest = Math.max(stages.indexOf(stage), stages.indexOf(target));
    if (stages.indexOf(to) > furthest)
      throw fail(
        'STEP_REFUSED',
        `A rollback goes back, and ${context} is at ${stage}. To go on to ${to}: POST /control/contexts/${context}/target`,
      );
    return this.aim(context, { stage: to, force: false, reason: reason ?? 'rolled back' });
  }

  @Post('contexts/:context/freeze')
  @Answers(200, ContextStatus)
  async freeze(
    @Param({ schema: OfContext }) { context }: z.output<typeof OfContext>,
    @Body({ schema: FreezeBody }) { frozen, reason }: z.output<typeof FreezeBody>,
  ) {
    const loop = this.control.loop(context);
    await loop.freeze(frozen);
    const action = frozen ? 'freeze' : 'unfreeze';
    await this.store.audit({ actor: ACTOR, action, context, detail: {}, reason: reason ?? null });
    return loop.status();
  }

  /** Every status at once, and each again when it has changed. */
  @Get('stream')
  @Answers(200)
  async stream(@Res() reply: FastifyReply): Promise<void> {
    const loops = this.control.all();
    const statuses = await Promise.all(loops.map((loop) => loop.status()));
    const stream = new EventStream(reply);
    for (const status of statuses) stream.send('context', status);
    stream.onEnd(this.control.onStatus((status) => stream.send('context', status)));
    stream.onEnd(this.control.onStandBy(() => stream.end()));
  }

  private async aim(
    context: string,
    { stage, percent, force, reason }: { stage: Stage; percent?: number; force: boolean; reason?: string },
  ): Promise<ContextStatus> {
    const loop = this.control.loop(context);
    const why = reason ?? `asked for ${stage}`;
    await loop.ask({ stage, actor: ACTOR, reason: why, force }, () =>
      this.flags.setTarget(context, { stage, percent, actor: ACTOR, reason: reason ?? null }),
    );
    if (force) await this.store.audit({ actor: ACTOR, action: 'force', context, detail: { stage }, reason: why });
    return loop.status();
  }
}
