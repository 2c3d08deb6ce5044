import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import { LRUCache } from 'lru-cache';
import type { RedisLink } from '../redis/index.js';
import { metrics } from '../telemetry/index.js';
import { Cache, type Forgotten, type Kept, isOutage } from './cache.js';

const PREFIX = 'banyan:cache:';
/** Pub/sub knows no databases: an installation that has its own number gets its own channel. */
const channelOf = (db: number): string => `banyan:${db}:forget`;

/** Values in this process. */
const LOCAL = 2_000;
/** A value whose JSON is longer is not shared, bytes: Redis is not where large things belong. */
const LARGEST = 256 * 1024;
/** Whoever loads has this long before somebody else may, ms. */
const LEASE = 3_000;
/** Whoever finds somebody else loading asks again after so many ms, twice as late each time, and in the end loads itself. */
const ASK_AGAIN = { firstMs: 5, mostMs: 40, allMs: 1_000 };
/** After a load that failed and was made good, ms: the source is left alone. */
const BACK_OFF = 1_000;
/** Groups are named by what they were last forgotten as; longer than anything in them lives, s. */
const GROUP_LIFE = 7 * 24 * 3600;
/** More than this to be told to a Redis that is away is not remembered one by one: then everything is forgotten. */
const OWED = 1_000;
/** What could not be told although Redis is there is told again after this, ms. */
const TELL_AGAIN = 100;
/** The group that every value is in. */
const ALL = '*';

/*
 * KEYS: value, lease, groups…; ARGV: my name, lease ms, stale ms, not before (ms of Redis's clock).
 * Gives: state, value, fresh ms left, do I have the lease, what the groups are called now.
 * What is forgotten is gone or has groups of another name. What is old may be had while somebody loads it anew. What was
 * kept before `not before` may have been forgotten in a message that never came: it is only good instead of a failure.
 */
const ASK = `
local groups = ''
for i = 3, #KEYS do groups = groups .. (redis.call('GET', KEYS[i]) or '-') .. ' ' end
local kept = redis.call('HMGET', KEYS[1], 'value', 'groups', 'at')
local state = 'none'
if kept[1] and kept[2] == groups then
  local left = redis.call('PTTL', KEYS[1]) - tonumber(ARGV[3])
  if left > 0 and tonumber(kept[3]) >= tonumber(ARGV[4]) then return { 'fresh', kept[1], left, 0, groups } end
  state = left > 0 and 'doubtful' or 'old'
end
local mine = redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2], 'NX')
return { state, state == 'none' and '' or kept[1], 0, mine and 1 or 0, groups }`;

/* KEYS as above; ARGV: my name, groups as they were, value, ms to live. Only who still has the lease, and no group forgotten. */
const KEEP = `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
local groups = ''
for i = 3, #KEYS do groups = groups .. (redis.call('GET', KEYS[i]) or '-') .. ' ' end
if groups ~= ARGV[2] then return 0 end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'value', ARGV[3], 'groups', groups, 'at', now[1] * 1000 + math.floor(now[2] / 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1`;

/* KEYS: lease; ARGV: my name, ms to leave it (0: none). */
const LEAVE = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) > 0 then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('DEL', KEYS[1])`;

type Answer = [
  state: 'fresh' | 'old' | 'doubtful' | 'none',
  text: string,
  freshMs: number,
  mine: 0 | 1,
  groups: string,
];

interface Scripts {
  banyanAsk(count: number, ...rest: (string | number)[]): Promise<Answer>;
  banyanKeep(count: number, ...rest: (string | number)[]): Promise<0 | 1>;
  banyanLeave(count: number, ...rest: (string | number)[]): Promise<number>;
}

interface Local {
  value: unknown;
  groups: readonly string[];
  freshUntil: number;
  /** It was kept while messages came; once they have been missed it is only good instead of a failure. */
  era: number;
}

interface Flight {
  groups: readonly string[];
  value: Promise<unknown>;
  /** Its value is being kept: until that is done it is still under way, or a change could not overtake it any more. */
  keeping?: Promise<void>;
  /** Something was forgotten since it began: nobody may join it, and nothing of it is kept. */
  overtaken: boolean;
}

class Debt {
  readonly keys = new Set<string>();
  readonly groups = new Set<string>();

  get size(): number {
    return this.keys.size + this.groups.size;
  }
}

type Read = 'local' | 'shared' | 'old' | 'loaded' | 'alone';
const reads = Object.fromEntries(
  (['local', 'shared', 'old', 'loaded', 'alone'] as const).map((from) => [
    from,
    metrics.counter('banyan_cache_reads', 'Values asked of the cache, by where they came from', { from }),
  ]),
) as Record<Read, { add(): void }>;

/**
 * Two levels: this process's memory, and Redis for all of them. A lease in Redis lets one process load a key at a time;
 * forgetting takes the lease away too, so that a value read before the change cannot be kept after it. What is forgotten
 * is told to every process by a message, and a process that may have missed one believes nothing from before. While Redis
 * is away every process loads for itself.
 *
 * Not bentocache: its locks end at the process, so a fleet loads a key once per process; and a slow load overwrites what
 * was forgotten meanwhile, on both levels.
 */
export class RedisCache extends Cache {
  readonly #link: RedisLink;
  readonly #commands: Redis & Scripts;
  readonly #listening: Redis;
  readonly #me = randomUUID();
  readonly #channel: string;
  readonly #local = new LRUCache<string, Local>({ max: LOCAL });
  readonly #flights = new Map<string, Flight>();
  readonly #unlisten: () => void;
  /** What Redis could not be told yet. */
  #owed = new Debt();
  #paying = false;
  /** Do messages come? */
  #heard = false;
  #era = 0;
  /** By Redis's clock, ms: what was kept earlier may have been forgotten since. */
  #notBefore = 0;

  constructor(link: RedisLink) {
    super();
    this.#link = link;
    this.#commands = link.commands as Redis & Scripts;
    for (const [name, lua] of Object.entries({ banyanAsk: ASK, banyanKeep: KEEP, banyanLeave: LEAVE }))
      if (!(name in link.commands)) link.commands.defineCommand(name, { lua });
    this.#channel = channelOf(link.commands.options.db ?? 0);
    this.#listening = link.connect({ autoResubscribe: false, maxRetriesPerRequest: 0, commandTimeout: 1_000 });
    this.#listening.on('ready', () => void this.#listen());
    this.#listening.on('close', () => this.#missed());
    this.#listening.on('message', (_, text) => this.#onMessage(text));
    this.#unlisten = link.onUp(() => void this.#pay());
  }

  async through<T>(kept: Kept<T>, load: () => Promise<T>): Promise<T> {
    const { key } = kept;
    const local = this.#local.get(key);
    if (local && this.#believes(local)) {
      reads.local.add();
      return local.value as T;
    }
    const joined = this.#flights.get(key);
    if (joined) return joined.value as Promise<T>;
    const flight: Flight = { groups: kept.groups ?? [], value: Promise.resolve(), overtaken: false };
    this.#flights.set(key, flight);
    const landed = (): void => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    flight.value = this.#fetch(kept, load, flight).finally(() => {
      if (flight.keeping) void flight.keeping.then(landed);
      else landed();
    });
    return flight.value as Promise<T>;
  }

  async forget({ keys = [], groups = [] }: Forgotten): Promise<void> {
    this.#drop(keys, groups);
    if (this.#link.up && (await this.#tell(keys, groups))) return;
    this.#owe(keys, groups);
    void this.#pay();
  }

  close(): void {
    this.#unlisten();
    this.#listening.disconnect();
  }

  #believes({ freshUntil, era }: Local): boolean {
    return era === this.#era && this.#heard && this.#link.up && freshUntil > performance.now();
  }

  /** Redis has what it has been told by others, and does not lack what it should have been told by us. */
  get #believesRedis(): boolean {
    return this.#heard && this.#link.up && !this.#paying && this.#owed.size === 0;
  }

  async #fetch<T>(kept: Kept<T>, load: () => Promise<T>, flight: Flight): Promise<T> {
    if (!this.#believesRedis) return this.#alone(kept, load);
    const me = randomUUID();
    const names = keysOf(kept);
    const giveUpAt = performance.now() + ASK_AGAIN.allMs;
    for (let wait = ASK_AGAIN.firstMs; ; wait = Math.min(2 * wait, ASK_AGAIN.mostMs)) {
      const era = this.#era;
      let answer: Answer;
      try {
        answer = await this.#commands.banyanAsk(names.length, ...names, me, LEASE, kept.staleMs, this.#notBefore);
      } catch {
        return this.#alone(kept, load);
      }
      const [state, text, left, mine, groups] = answer;
      if (state === 'fresh') {
        const value = JSON.parse(text) as T;
        this.#remember(kept, value, flight, { freshMs: left, era });
        reads.shared.add();
        return value;
      }
      if (mine) return this.#load(kept, load, flight, { me, groups, era, old: text });
      if (state === 'old') {
        reads.old.add();
        return JSON.parse(text) as T;
      }
      if (performance.now() > giveUpAt) return this.#alone(kept, load);
      await pause(wait);
    }
  }

  /** With the lease: for everybody. */
  async #load<T>(
    kept: Kept<T>,
    load: () => Promise<T>,
    flight: Flight,
    { me, groups, era, old }: { me: string; groups: string; era: number; old: string },
  ): Promise<T> {
    const names = keysOf(kept);
    try {
      const value = await load();
      reads.loaded.add();
      const text = JSON.stringify(value);
      const worthIt = text.length <= LARGEST && (kept.keepIf?.(value) ?? true);
      // After an outage it may have been forgotten in a message that nobody got.
      if (!worthIt || era !== this.#era) void this.#commands.banyanLeave(1, names[1]!, me, 0).catch(() => {});
      else
        flight.keeping = this.#commands
          .banyanKeep(names.length, ...names, me, groups, text, kept.freshMs + kept.staleMs)
          .then((done) => void (done && this.#remember(kept, value, flight, { freshMs: kept.freshMs, era })))
          .catch(() => {});
      return value;
    } catch (error) {
      const spare = old ? { value: JSON.parse(old) as unknown } : this.#spare(kept);
      const madeGood = spare !== undefined && isOutage(error);
      void this.#commands.banyanLeave(1, names[1]!, me, madeGood ? BACK_OFF : 0).catch(() => {});
      if (!madeGood) throw error;
      reads.old.add();
      return spare.value as T;
    }
  }

  /** Without Redis. */
  async #alone<T>(kept: Kept<T>, load: () => Promise<T>): Promise<T> {
    try {
      const value = await load();
      reads.alone.add();
      return value;
    } catch (error) {
      const spare = this.#spare(kept);
      if (!spare || !isOutage(error)) throw error;
      reads.old.add();
      return spare.value as T;
    }
  }

  /** What is left in memory, good instead of a failure. */
  #spare({ key, staleMs }: Pick<Kept, 'key' | 'staleMs'>): { value: unknown } | undefined {
    const local = this.#local.get(key);
    return local && local.freshUntil + staleMs > performance.now() ? local : undefined;
  }

  #remember(
    kept: Pick<Kept, 'key' | 'groups'>,
    value: unknown,
    flight: Flight,
    { freshMs, era }: { freshMs: number; era: number },
  ): void {
    if (flight.overtaken || era !== this.#era) return;
    const freshUntil = performance.now() + freshMs;
    this.#local.set(kept.key, { value, groups: kept.groups ?? [], freshUntil, era });
  }

  /** In this process, at once. */
  #drop(keys: readonly string[], groups: readonly string[]): void {
    const away = (key: string): void => {
      this.#local.delete(key);
      const flight = this.#flights.get(key);
      if (!flight) return;
      flight.overtaken = true;
      this.#flights.delete(key);
    };
    for (const key of keys) away(key);
    if (groups.length === 0) return;
    const concerned = (of: readonly string[]) => groups.includes(ALL) || of.some((group) => groups.includes(group));
    for (const [key, local] of [...this.#local.entries()]) if (concerned(local.groups)) away(key);
    for (const [key, flight] of this.#flights) if (concerned(flight.groups)) away(key);
  }

  #owe(keys: Iterable<string>, groups: Iterable<string>): void {
    for (const key of keys) this.#owed.keys.add(key);
    for (const group of groups) this.#owed.groups.add(group);
    if (this.#owed.size <= OWED) return;
    this.#owed = new Debt();
    this.#owed.groups.add(ALL);
  }

  /**
   * Tells what could not be told, as soon as Redis takes it: who was not cut off from it still believes what it holds.
   * Runs whenever Redis has come back, and until nothing is owed or Redis has gone again.
   */
  async #pay(): Promise<void> {
    if (this.#paying) return;
    this.#paying = true;
    while (this.#link.up && this.#owed.size > 0) {
      const { keys, groups } = this.#owed;
      this.#owed = new Debt();
      if (await this.#tell([...keys], [...groups])) continue;
      this.#owe(keys, groups);
      await pause(TELL_AGAIN, undefined, { ref: false });
    }
    this.#paying = false;
  }

  async #tell(keys: readonly string[], groups: readonly string[]): Promise<boolean> {
    const all = this.#commands.multi();
    for (const key of keys) all.del(valueOf(key), leaseOf(key));
    for (const group of groups) all.set(nameOf(group), randomUUID(), 'EX', GROUP_LIFE);
    all.publish(this.#channel, JSON.stringify({ from: this.#me, keys, groups }));
    try {
      return (await all.exec())?.every(([error]) => error === null) ?? false;
    } catch {
      return false;
    }
  }

  #onMessage(text: string): void {
    const { from, keys, groups } = JSON.parse(text) as Required<Forgotten> & { from: string };
    if (from !== this.#me) this.#drop(keys, groups);
  }

  #missed(): void {
    this.#heard = false;
    this.#era++;
  }

  /** Messages come again: from here on, and Redis says when that was. */
  async #listen(): Promise<void> {
    const era = this.#era;
    try {
      await this.#listening.subscribe(this.#channel);
      // A process that has just begun has missed nothing.
      let notBefore = 0;
      if (era > 0) {
        const [s, us] = await this.#commands.time();
        notBefore = Number(s) * 1_000 + Math.floor(Number(us) / 1_000);
      }
      // The connection may have gone meanwhile: the next one speaks for itself.
      if (era !== this.#era) return;
      this.#notBefore = notBefore;
      this.#heard = true;
    } catch {
      // `commands` is not up yet: it is tried again when this connection has come back.
      if (era === this.#era) this.#listening.disconnect(true);
    }
  }
}

const valueOf = (key: string): string => `${PREFIX}value:${key}`;
const leaseOf = (key: string): string => `${PREFIX}lease:${key}`;
const nameOf = (group: string): string => `${PREFIX}group:${group}`;

/** The names in Redis: value, lease, groups. */
const keysOf = ({ key, groups = [] }: Pick<Kept, 'key' | 'groups'>): string[] => [
  valueOf(key),
  leaseOf(key),
  nameOf(ALL),
  ...groups.map(nameOf),
];
