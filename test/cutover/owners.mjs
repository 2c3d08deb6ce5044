// A process that does nothing but look at who owns a context, on both sides, again and again.
import { setImmediate as next, setTimeout as sleep } from 'node:timers/promises';
import { streamName } from '@banyan/extraction/protocol';
import pg from 'pg';

const SIDES = ['monolith', 'service'];
const other = (side) => (side === 'monolith' ? 'service' : 'monolith');
/** Between two looks, ms: a look costs three round trips, and the machine has other things to do. */
const EVERY_MS = 5;
const RETRY_MS = 200;
/**
 * A transaction is about to change the row. Its commit is in the log, and the bridge may act on it, a moment before others
 * can see it; no command gets through the fence then, so such a side does not count as open.
 */
const CLOSING = `(xmax <> 0::text::xid and pg_xact_status(xmax::text::xid8) is distinct from 'aborted')`;
const isAboutTheTable = ({ code }) => /^42/.test(code ?? '');

/** One connection for each database, and a new one when it was cut. */
class Eyes {
  #clients = new Map();
  #blindUntil = new Map();

  /** The owner's row, and where the log of its database stands. */
  async row(url, context) {
    const row = await this.#ask(url, {
      name: context,
      text: `select open, epoch::int8::text as epoch, extract(epoch from changed_at)::float8 * 1000 as changed,
        (pg_current_wal_insert_lsn() - '0/0')::text as lsn, ${CLOSING} as closing from ${context}.banyan_owner`,
    });
    return row && { ...row, epoch: Number(row.epoch), lsn: BigInt(row.lsn) };
  }

  /** How far the other side's log has been applied to this database. */
  async mark(url, stream) {
    const row = await this.#ask(url, {
      name: 'mark',
      text: `select (lsn - '0/0')::text as lsn from banyan_replication.mark where stream = $1`,
      values: [stream],
    });
    return row && BigInt(row.lsn);
  }

  async #ask(url, query) {
    if (performance.now() < this.#blindUntil.get(url)) return undefined;
    try {
      let client = this.#clients.get(url);
      if (!client) {
        client = new pg.Client({
          connectionString: url,
          application_name: 'owner-watch',
          connectionTimeoutMillis: 2_000,
        });
        client.on('error', () => this.#clients.delete(url));
        await client.connect();
        this.#clients.set(url, client);
      }
      return (await client.query(query)).rows[0];
    } catch (error) {
      // The database of a service does not exist before its first extraction, and Postgres may have been killed.
      this.#blindUntil.set(url, performance.now() + RETRY_MS);
      if (!isAboutTheTable(error)) {
        void this.#clients
          .get(url)
          ?.end()
          .catch(() => {});
        this.#clients.delete(url);
      }
      return undefined;
    }
  }

  close() {
    return Promise.all([...this.#clients.values()].map((client) => client.end().catch(() => {})));
  }
}

/** What was seen of one context. */
class Sight {
  /** Who was seen open last, and at which epoch. */
  open;
  /** Since when nobody has been seen to own it, at which epoch, and the last instant at which that was so. */
  closed;
  handovers = [];
  wrong = [];
  looks = 0;

  constructor(context) {
    this.context = context;
  }

  /** Up to where the log of a side was seen to be its owner's, as it stood before a look at the open row. */
  owned = {};

  /**
   * `first` and `again` are two looks at one side, `between` the look at the other side, all after `began`. Answers who
   * handed over, if one did.
   */
  judge(side, [first, between, again], began) {
    this.looks++;
    // Open at one epoch before and after: open all the time, because an epoch never comes again.
    const openThroughout = first?.open && again?.open && first.epoch === again.epoch && !again.closing;
    if (openThroughout && between?.open)
      this.wrong.push(
        `${this.context} had two owners: ${side} at ${first.epoch} and ${other(side)} at ${between.epoch}`,
      );
    if (openThroughout) this.owned[side] = first.lsn;
    const rows = { [side]: again, [other(side)]: between };
    const now = SIDES.find((each) => rows[each]?.open);
    if (!now) {
      if (!rows.monolith || !rows.service) return;
      const at = Math.max(rows.monolith.epoch, rows.service.epoch);
      if (this.closed?.at !== at) this.closed = { at, from: clock() };
      this.closed.to = began;
      return;
    }
    // The owner changed while we looked, or there are two: said above. The next look shows how it is.
    if (rows[other(now)]?.open) return;
    const { epoch, changed } = rows[now];
    const before = this.open;
    if (before && (epoch < before.epoch || (epoch === before.epoch && now !== before.side)))
      this.wrong.push(`${this.context} was owned by ${before.side} at ${before.epoch} and then by ${now} at ${epoch}`);
    if (before && epoch > before.epoch) {
      const closed = rows[other(now)];
      this.handovers.push({
        context: this.context,
        from: before.side,
        to: now,
        epoch,
        // As the rows say it; a side that was opened again by an aborted hand-over has only itself.
        closedAt: now === before.side ? this.closed?.from : closed?.changed,
        openedAt: changed,
        // As it was seen from here, between two looks that found it so; undefined when it was too short to be seen.
        seenMs: this.closed && Math.max(0, this.closed.to - this.closed.from),
      });
    }
    this.open = { side: now, epoch };
    this.closed = undefined;
    return before && before.side !== now ? before.side : undefined;
  }

  /** `from` was the owner until a moment ago: what it had written by then has to be there, and `mark` says what is. */
  judgeOpening(from, mark) {
    if (mark !== undefined && mark < this.owned[from])
      this.wrong.push(
        `${this.context}: the ${other(from)} opened with the log of the ${from} up to ${mark}, which wrote up to ${this.owned[from]}`,
      );
  }
}

const clock = () => performance.timeOrigin + performance.now();

const { urls } = JSON.parse(process.argv[2]);
const eyes = new Eyes();
const sights = new Map(Object.keys(urls).map((context) => [context, new Sight(context)]));
/** Contexts that may change owner now; the others are looked at now and then. */
let watched = [];
let over = false;

async function look(context) {
  const sight = sights.get(context);
  const side = sight.looks % 2 === 0 ? 'monolith' : 'service';
  const at = (which) => eyes.row(urls[context][which], context);
  const began = clock();
  const first = await at(side);
  const between = await at(other(side));
  const from = sight.judge(side, [first, between, await at(side)], began);
  if (from)
    sight.judgeOpening(
      from,
      await eyes.mark(urls[context][other(from)], streamName(context, from, urls[context][from])),
    );
}

process.on('message', ({ watch, report }) => {
  if (watch) watched = watch;
  over ||= report === 'last';
  const all = [...sights.values()];
  process.send({
    looks: all.reduce((sum, { looks }) => sum + looks, 0),
    handovers: all.flatMap(({ handovers }) => handovers),
    wrong: all.flatMap(({ wrong }) => wrong),
    open: Object.fromEntries([...sights].map(([context, { open }]) => [context, open?.side])),
  });
});
process.on('disconnect', () => process.exit());
process.send('ready');

for (let round = 0; !over; round++) {
  for (const context of watched) await look(context);
  const rest = Object.keys(urls).filter((context) => !watched.includes(context));
  if (rest.length > 0 && round % 10 === 0) await look(rest[(round / 10) % rest.length]);
  if (watched.some((context) => sights.get(context).closed)) await next();
  else await sleep(EVERY_MS);
}
await eyes.close();
process.disconnect();
