import { Body, Controller, Get, Param, Patch, Post, Put } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { newId } from '@banyan/kernel';
import { Config } from '@banyan/platform/config';
import { Answers, fail } from '@banyan/platform/http';
import { z } from 'zod';
import { Patches, patched } from './json-patch.js';
import { OwnFlags, type StoredFlag } from './own-flags.js';
import { NewStrategy, type StoredStrategy, StrategyChanges, Variants, strategyOf, weighted } from './unleash-json.js';

const text = z.string().max(100);
const InProject = z.object({ project: text });
const OfFlag = InProject.extend({ flag: text });
const InEnvironment = OfFlag.extend({ environment: text });
const OfStrategy = InEnvironment.extend({ strategy: text });

/** The audit log's name for whoever holds the operator token and came by this API. */
const ACTOR = 'operator';

/**
 * The calls of Unleash's admin API that set a flag: on, off, variants, strategies. There is one project and one
 * environment, the configured ones, and the flags are those of the contexts: none are created or deleted.
 */
@ApiTags('flags')
@Controller('api/admin/projects/:project/features')
export class AdminApi {
  constructor(
    private readonly flags: OwnFlags,
    private readonly config: Config,
  ) {}

  @Get()
  @Answers(200)
  features(@Param({ schema: InProject }) { project }: z.output<typeof InProject>) {
    this.#inProject(project);
    return {
      version: 2,
      features: this.flags.all().map((flag) => ({
        ...this.#described(flag),
        environments: [this.#environment(flag)],
      })),
    };
  }

  @Get(':flag')
  @Answers(200)
  feature(@Param({ schema: OfFlag }) { project, flag }: z.output<typeof OfFlag>) {
    this.#inProject(project);
    const found = this.flags.one(flag);
    const { name, type, enabled } = this.#environment(found);
    return {
      ...this.#described(found),
      project,
      archived: false,
      environments: [{ name, type, enabled, strategies: found.strategies }],
    };
  }

  @Get(':flag/environments/:environment')
  @Answers(200)
  environment(@Param({ schema: InEnvironment }) where: z.output<typeof InEnvironment>) {
    const { name, enabled, strategies } = this.#find(where);
    return { name, environment: where.environment, enabled, strategies };
  }

  @Post(':flag/environments/:environment/on')
  @Answers(200)
  async on(@Param({ schema: InEnvironment }) where: z.output<typeof InEnvironment>): Promise<void> {
    this.#find(where);
    await this.flags.change(where.flag, 'flag on', ACTOR, (flag) => ({
      ...flag,
      enabled: true,
      // As Unleash does it: a flag that is on has a strategy, else it would say nothing to anybody.
      strategies: flag.strategies.some(({ disabled }) => !disabled)
        ? flag.strategies
        : [...flag.strategies, strategyOf(flag.name, newId(), 'flexibleRollout', {}, flag.strategies.length)],
    }));
  }

  @Post(':flag/environments/:environment/off')
  @Answers(200)
  async off(@Param({ schema: InEnvironment }) where: z.output<typeof InEnvironment>): Promise<void> {
    this.#find(where);
    await this.flags.change(where.flag, 'flag off', ACTOR, (flag) => ({ ...flag, enabled: false }));
  }

  @Get(':flag/environments/:environment/variants')
  @Answers(200)
  variants(@Param({ schema: InEnvironment }) where: z.output<typeof InEnvironment>) {
    return { version: 1, variants: this.#find(where).variants };
  }

  @Put(':flag/environments/:environment/variants')
  @Answers(200)
  async setVariants(
    @Param({ schema: InEnvironment }) where: z.output<typeof InEnvironment>,
    @Body({ schema: Variants }) given: z.output<typeof Variants>,
  ) {
    this.#find(where);
    const variants = weighted(given);
    await this.flags.change(where.flag, 'flag variants', ACTOR, (flag) => ({ ...flag, variants }));
    return { version: 1, variants };
  }

  @Patch(':flag/environments/:environment/variants')
  @Answers(200)
  async patchVariants(
    @Param({ schema: InEnvironment }) where: z.output<typeof InEnvironment>,
    @Body({ schema: Patches }) patches: z.output<typeof Patches>,
  ) {
    this.#find(where);
    const { variants } = await this.flags.change(where.flag, 'flag variants', ACTOR, (flag) => {
      const result = Variants.safeParse(patched(flag.variants, patches));
      if (!result.success)
        throw fail('INPUT_INVALID', `The patched variants are invalid: ${z.prettifyError(result.error)}`);
      return { ...flag, variants: weighted(result.data) };
    });
    return { version: 1, variants };
  }

  @Get(':flag/environments/:environment/strategies')
  @Answers(200)
  strategies(@Param({ schema: InEnvironment }) where: z.output<typeof InEnvironment>): StoredStrategy[] {
    return this.#find(where).strategies;
  }

  @Post(':flag/environments/:environment/strategies')
  @Answers(200)
  async addStrategy(
    @Param({ schema: InEnvironment }) where: z.output<typeof InEnvironment>,
    @Body({ schema: NewStrategy }) { name, ...given }: z.output<typeof NewStrategy>,
  ): Promise<StoredStrategy> {
    this.#find(where);
    const id = newId();
    const changed = await this.flags.change(where.flag, 'flag strategy', ACTOR, (flag) => {
      if (flag.strategies.length >= 30)
        throw fail('INPUT_INVALID', 'A flag has 30 strategies at most: change one of them');
      return {
        ...flag,
        strategies: [...flag.strategies, strategyOf(flag.name, id, name, given, flag.strategies.length)],
      };
    });
    return strategyIn(changed, id);
  }

  @Get(':flag/environments/:environment/strategies/:strategy')
  @Answers(200)
  strategy(@Param({ schema: OfStrategy }) where: z.output<typeof OfStrategy>): StoredStrategy {
    return strategyIn(this.#find(where), where.strategy);
  }

  @Put(':flag/environments/:environment/strategies/:strategy')
  @Answers(200)
  async setStrategy(
    @Param({ schema: OfStrategy }) where: z.output<typeof OfStrategy>,
    @Body({ schema: StrategyChanges }) given: z.output<typeof StrategyChanges>,
  ): Promise<StoredStrategy> {
    this.#find(where);
    const changed = await this.flags.change(where.flag, 'flag strategy', ACTOR, (flag) => {
      const before = strategyIn(flag, where.strategy);
      const after = strategyOf(flag.name, before.id, given.name ?? before.name, given, before.sortOrder);
      return { ...flag, strategies: flag.strategies.map((each) => (each === before ? after : each)) };
    });
    return strategyIn(changed, where.strategy);
  }

  #find({ project, flag, environment }: z.output<typeof InEnvironment>): StoredFlag {
    this.#inProject(project);
    const found = this.flags.one(flag);
    if (environment !== this.config.flags.environment)
      throw fail('FLAG_UNKNOWN', `There is no environment ${environment}; there is ${this.config.flags.environment}`);
    return found;
  }

  #inProject(project: string): void {
    if (project !== this.config.flags.project)
      throw fail('FLAG_UNKNOWN', `There is no project ${project}; there is ${this.config.flags.project}`);
  }

  #described({ name, createdAt }: StoredFlag) {
    return { name, type: 'operational', description: null, stale: false, impressionData: false, createdAt };
  }

  #environment({ enabled, strategies, variants }: StoredFlag) {
    return {
      name: this.config.flags.environment,
      type: 'development',
      enabled,
      variantCount: variants.length,
      hasStrategies: strategies.length > 0,
      hasEnabledStrategies: strategies.some(({ disabled }) => !disabled),
    };
  }
}

function strategyIn({ name, strategies }: StoredFlag, id: string): StoredStrategy {
  const found = strategies.find((each) => each.id === id);
  if (!found) throw fail('FLAG_UNKNOWN', `The flag ${name} has no strategy ${id}; GET …/strategies lists them`);
  return found;
}
