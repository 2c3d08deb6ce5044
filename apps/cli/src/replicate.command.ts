import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import {
  type Mapping,
  ReplicationError,
  type Stream,
  type StreamState,
  dropStream,
  preflight,
  prepareStream,
  runStream,
  streamState,
  targetIsEmpty,
} from '@banyan/replication';
import { command } from './command.js';
import { CommandError, sentence } from './exit.js';
import type { Screen } from './screen.js';

const EVERY_MS = 1_000;
/* Behind by no more than this, with all rows copied, it has caught up. */
const CAUGHT_UP_BYTES = 64 * 1024;

export const replicate = command({
  name: 'replicate',
  description: 'Keep a schema of one Postgres database up to date in another, until Ctrl-C',
  args: {
    source: { type: 'string', description: 'postgres://… to copy from', required: true },
    target: { type: 'string', description: 'postgres://… to copy to', required: true },
    schema: { type: 'string', description: 'The schema to copy', required: true },
    'target-schema': { type: 'string', description: 'Its name in the target, when it is another' },
    tables: { type: 'string', description: 'Only these: a,b,c' },
    name: { type: 'string', description: 'Of slot, publication and mark; made from the rest by default' },
    mapping: { type: 'string', description: 'A module whose default export turns a row into rows of the target' },
    truncate: { type: 'boolean', description: 'Empty the tables of the target first', default: false },
    drop: { type: 'boolean', description: 'Remove slot, publication and mark; the rows stay', default: false },
  },
  async run(args, screen) {
    const stream = await streamOf(args as Arguments);
    if (args.drop) {
      await known(() => dropStream(stream));
      return screen.done(
        { stream: stream.name, dropped: true },
        `${stream.name} is dropped; the rows are as they were.`,
      );
    }
    await prepare(stream, args.truncate, screen);
    const stop = new AbortController();
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => stop.abort());
    let troubled: string | undefined;
    const progress = watch(stream, screen, stop.signal);
    await known(() =>
      runStream(stream, {
        signal: stop.signal,
        onOpen: () => (troubled = undefined),
        onProblem: ({ message }) => {
          if (troubled !== message) screen.tell({ event: 'notice', message: `Waiting: ${sentence(message)}` });
          troubled = message;
        },
        onWarning: (message) => screen.tell({ event: 'notice', message }),
      }),
    ).finally(() => stop.abort());
    await progress;
    const { appliedLsn, backfill } = await known(() => streamState(stream));
    const rest = backfill && !backfill.done ? ` ${backfill.percent} % are copied.` : '';
    screen.done(
      { stream: stream.name, appliedLsn, backfill },
      `Stopped at ${appliedLsn}.${rest} The same command goes on from here; with --drop it leaves nothing behind.`,
    );
  },
});

interface Arguments {
  source: string;
  target: string;
  schema: string;
  'target-schema'?: string;
  tables?: string;
  name?: string;
  mapping?: string;
}

async function streamOf({ source, target, schema, tables, name, mapping, ...rest }: Arguments): Promise<Stream> {
  const targetSchema = rest['target-schema'];
  // The same for the same command, so that it finds what it left behind.
  const hash = createHash('sha256')
    .update([place(source), place(target), schema, targetSchema].join('\n'))
    .digest('hex');
  return {
    name:
      name ??
      `banyan_${schema
        .toLowerCase()
        .replace(/[^a-z0-9_]/g, '_')
        .slice(0, 30)}_${hash.slice(0, 8)}`,
    source,
    target,
    schema,
    ...(targetSchema && { targetSchema }),
    ...(tables && { tables: tables.split(',').map((table) => table.trim()) }),
    ...(mapping && { mapping: await mappingIn(mapping) }),
  };
}

/** Which database a URL means, whoever asks. */
function place(url: string): string {
  if (!URL.canParse(url))
    throw new CommandError('BAD_USAGE', 'That is no URL of a database:', 'postgres://user:password@host/database.');
  const { host, pathname } = new URL(url);
  return `${host}${pathname}`;
}

async function mappingIn(file: string): Promise<Mapping> {
  const next = 'Its default export has to be (table, row, change) => [{ table, row }].';
  try {
    const { default: mapping, truncated } = (await import(pathToFileURL(resolve(file)).href)) as {
      default?: Mapping;
      truncated?: Mapping['truncated'];
    };
    if (typeof mapping !== 'function') throw new CommandError('REFUSED', `${file} exports no mapping.`, next);
    return truncated ? Object.assign(mapping, { truncated }) : mapping;
  } catch (error) {
    if (error instanceof CommandError) throw error;
    throw new CommandError('REFUSED', `${file} cannot be loaded: ${sentence((error as Error).message)}`, next);
  }
}

async function prepare(stream: Stream, truncate: boolean, screen: Screen): Promise<void> {
  const problems = await preflight(stream);
  if (problems.length > 0)
    throw new CommandError('REFUSED', problems.map(({ message }) => message).join('\n'), 'Nothing was changed.');
  const { state, reason } = await known(() => streamState(stream));
  if (state === 'lost' && !truncate)
    throw new CommandError(
      'REFUSED',
      sentence(`Changes were lost: ${reason}`),
      'Add --truncate to copy everything again.',
    );
  if (state === 'lost' || state === 'absent') {
    if (!truncate && !(await targetIsEmpty(stream)))
      throw new CommandError(
        'REFUSED',
        'The tables of the target have rows.',
        'Add --truncate to empty them first, or name other tables.',
      );
    await known(() => prepareStream(stream, { backfill: true }));
    screen.tell({ event: 'notice', message: `Copying ${stream.schema} as ${stream.name}.` });
  } else screen.tell({ event: 'notice', message: `Going on with ${stream.name}.` });
}

/** Tells about once a second how far it is, and when it has caught up. */
async function watch(stream: Stream, screen: Screen, signal: AbortSignal): Promise<void> {
  let before: { rows: number; at: number } | undefined;
  let caughtUp = false;
  for (; !signal.aborted; await sleep(EVERY_MS, undefined, { signal }).catch(() => {})) {
    const state = await streamState(stream).catch(() => undefined);
    if (!state || !state.active || signal.aborted) continue;
    const { backfill, lag } = state;
    const rows = backfill?.rows ?? 0;
    const at = performance.now();
    const rate = before ? Math.max(0, Math.round(((rows - before.rows) * 1000) / (at - before.at))) : 0;
    before = { rows, at };
    const now = isCaughtUp(state);
    if (backfill && !backfill.done)
      screen.tell(
        { event: 'copying', percent: backfill.percent, rows, rowsPerSecond: rate, lag },
        `${String(backfill.percent).padStart(3)} %  ${rows.toLocaleString('en')} rows  ${rate.toLocaleString('en')} rows/s`,
      );
    else if (now && !caughtUp)
      screen.tell({ event: 'caught-up', rows, lag }, 'Caught up. Changes are carried over as they come; Ctrl-C stops.');
    else if (!now) screen.tell({ event: 'behind', lag }, `${(lag?.bytes ?? 0).toLocaleString('en')} bytes behind`);
    caughtUp = now;
  }
}

const isCaughtUp = ({ backfill, lag }: StreamState): boolean =>
  (backfill?.done ?? true) && lag !== null && lag.bytes < CAUGHT_UP_BYTES;

async function known<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ReplicationError) throw new CommandError('REFUSED', error.detail, error.next);
    throw error;
  }
}
