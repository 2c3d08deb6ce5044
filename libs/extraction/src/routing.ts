import { z } from 'zod';
import { Side, Stage } from './stage.js';

const Address = z.strictObject({ host: z.string(), port: z.int() });

/** Once there was one instance of a side, and no list: so it stands on disk where a router has been upgraded since. */
const oneOrMore = <T>(each: z.ZodType<T>) =>
  z.preprocess((given) => (Array.isArray(given) ? given : [given]), z.array(each).min(1));

/** Where one side of a context answers: one address for each of its instances, of which any will do. */
export const Endpoints = z.strictObject({
  /** For the proxy: `http://127.0.0.1:3101`. */
  http: oneOrMore(z.string()),
  /** For the buses of other processes. */
  rpc: oneOrMore(Address),
});
export type Endpoints = z.output<typeof Endpoints>;

/** What a router has to know of one context. */
export const ContextRouting = z.strictObject({
  stage: Stage,
  /** Who may write, as far as the control plane knows. The fence in the database decides. */
  owner: Side,
  epoch: z.int(),
  /** The owner is changing just now: commands are held, for 2 s at most. */
  holding: z.boolean(),
  /** When the stage was entered (ISO): figures about the stage are counted from here. */
  since: z.string(),
  service: Endpoints.nullable(),
});
export type ContextRouting = z.output<typeof ContextRouting>;

/** What the control plane pushes to every router: whole each time, so that a lost message does no harm. */
export const Routing = z.strictObject({
  /** Grows with every change; of two, the higher one holds. */
  revision: z.int(),
  monolith: Endpoints,
  contexts: z.record(z.string(), ContextRouting),
});
export type Routing = z.output<typeof Routing>;
