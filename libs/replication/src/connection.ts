import pg from 'pg';

/** What makes values the same text on both sides, whatever a role or database has as its default. */
const SAME_TEXT =
  '-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 -c timezone=UTC -c bytea_output=hex';

const CONNECT_MS = 10_000;

export interface ConnectOptions {
  /** Shown in pg_stat_activity. */
  as: string;
  replication?: boolean;
  /** Statements are sent without waiting for the one before. */
  pipeline?: boolean;
}

export async function connect(url: string, { as, replication, pipeline }: ConnectOptions): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: url,
    application_name: as,
    options: SAME_TEXT,
    keepAlive: true,
    connectionTimeoutMillis: CONNECT_MS,
    ...(replication && { replication: 'database' }),
    ...(pipeline && { pipeline: true }),
  } as pg.ClientConfig);
  client.on('error', () => {}); // whoever waits for a statement is told
  await client.connect();
  return client;
}

/** A client or a pool. */
export interface Queryable {
  query<R extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<{ rows: R[] }>;
}

/** Runs `work` on a connection of its own. */
export async function withConnection<T>(
  url: string,
  options: ConnectOptions,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = await connect(url, options);
  try {
    return await work(client);
  } finally {
    await client.end().catch(() => {});
  }
}

export const quoted = (name: string): string => pg.escapeIdentifier(name);
export const literal = (text: string): string => pg.escapeLiteral(text);
export const qualified = (schema: string, table: string): string => `${quoted(schema)}.${quoted(table)}`;

/** What @types/pg leaves out: the protocol below a client, for the COPY modes that the client itself does not read. */
export interface Wire {
  query(text: string): void;
  sendCopyFromChunk(chunk: Buffer): void;
  stream: { pause(): void; resume(): void; destroy(): void };
}
export const wireOf = (client: pg.Client): Wire => (client as unknown as { connection: Wire }).connection;
