import type { Mapping } from './mapping.js';

/** One direction of replication: every row of the tables of a schema in one database, kept in another. */
export interface Stream {
  /** Names the slot (one of its name per server), the publication and the mark: lower case letters, digits, `_`; at most 50. */
  name: string;
  /** Where the rows come from; a role that may replicate and owns the tables. */
  source: string;
  /** Where they go to; a role that may set session_replication_role. */
  target: string;
  schema: string;
  /** The schema in the target, when it has another name. */
  targetSchema?: string;
  /** Only these tables; all of the schema when left out. */
  tables?: readonly string[];
  /** Tables that stay where they are. `_prisma_migrations` and `banyan_owner` by default: they tell about one database. */
  exclude?: readonly string[];
  /** From the source's rows to the target's, where the two models differ. */
  mapping?: Mapping;
}

export const DEFAULT_EXCLUDE = ['_prisma_migrations', 'banyan_owner'] as const;

/** A log position as Postgres writes it. */
export const lsnText = (lsn: bigint): string =>
  `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;

export function lsnOf(text: string): bigint {
  const [high, low] = text.split('/') as [string, string];
  return (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`);
}
