import { EventEmitter } from 'node:events';
import { type UnleashConfig, UnleashEvents } from 'unleash-client';
import type { Flag } from './flag.js';

type Repository = NonNullable<UnleashConfig['repository']>;
type Feature = NonNullable<ReturnType<Repository['getToggle']>>;
type EnhancedFeature = ReturnType<Repository['getTogglesWithSegmentData']>[number];
export type Segment = NonNullable<ReturnType<Repository['getSegment']>>;

/** Flags in memory, where unleash-client looks them up. */
export class FlagRepository extends EventEmitter implements Repository {
  protected flags: ReadonlyMap<string, Flag>;
  protected segments: ReadonlyMap<number, Segment> = new Map();

  constructor(flags: readonly Flag[] = []) {
    super();
    this.flags = new Map(flags.map((flag) => [flag.name, flag]));
  }

  /** unleash-client answers "off" to everything until it hears this, so it is told at once. */
  async start(): Promise<void> {
    this.emit(UnleashEvents.Ready);
  }

  stop(): void {
    this.removeAllListeners();
  }

  flag(name: string): Flag | undefined {
    return this.flags.get(name);
  }

  getToggle(name: string): Feature | undefined {
    return this.flags.get(name) as Feature | undefined;
  }

  getToggles(): Feature[] {
    return [...this.flags.values()] as Feature[];
  }

  getTogglesWithSegmentData(): EnhancedFeature[] {
    return this.getToggles().map(({ strategies, ...feature }) => ({
      ...feature,
      strategies: strategies?.map(({ segments, ...strategy }) => ({
        ...strategy,
        segments: segments?.map((id) => this.segments.get(id)),
      })),
    }));
  }

  getSegment(id: number): Segment | undefined {
    return this.segments.get(id);
  }
}
