import { createHash } from 'node:crypto';
import type { Side } from '@banyan/kernel';

const stem = (context: string, from: Side): string => `banyan_${context.replaceAll('-', '_')}_${from}`;

/**
 * What a context's stream from one of its sides is called, and with it its slot. Slots belong to the whole server, on
 * which there may be two installations: so the name says which database `source`, the URL of the side's, means.
 */
export function streamName(context: string, from: Side, source: string): string {
  const { pathname, username } = new URL(source);
  // As Postgres reads it: without a name, the role's. Neither host nor role: the same database has many.
  const database = decodeURIComponent(pathname.slice(1) || username);
  return `${stem(context, from)}_${createHash('sha256').update(database).digest('hex').slice(0, 8)}`;
}

/** What all names of that stream match, as a regular expression: for whoever does not know the other side's database. */
export const streamPattern = (context: string, from: Side): string => `^${stem(context, from)}_[0-9a-f]{8}$`;
