import type { HandoverAction, HandoverFacts, OwnerRow, OwnerRows } from '@banyan/extraction/protocol';
import * as protocol from '@banyan/extraction/protocol';

type Side = OwnerRow['side'];

/** What is searched: the protocol's own functions, or, to see the search find something, one of them made wrong. */
export interface Model {
  close: typeof protocol.close;
  open: typeof protocol.open;
  bar: typeof protocol.bar;
  reopen: typeof protocol.reopen;
  nextStep: typeof protocol.nextStep;
  /** The coordinator opens the other side itself instead of waiting for the log. */
  opensEarly?: boolean;
  /** The bridge moves its mark in one transaction and the data in the next, and may die between the two. */
  markApart?: boolean;
}

export const sound: Model = { ...protocol };

export interface Limits {
  /** No hand-over ends above this epoch; a context starts at 1. */
  epochs: number;
  coordinators: number;
}

export interface Finding {
  states: number;
  /** The shortest way to what must not be, or undefined. */
  violation?: { what: string; trace: string[] };
}

/* A coordinator knows nothing, has read one row, or holds a plan, for as long as it likes. */
type Coordinator = { read: OwnerRow } | { plan: Plan } | null;
type Plan = HandoverAction | { do: 'open'; side: Side; epoch: number };

interface State {
  monolith: OwnerRow;
  service: OwnerRow;
  /** One write per epoch, as bits: all that were committed, and those that each side has. */
  written: number;
  has: Record<Side, number>;
  /** Each side's log: the epoch of a write, or MESSAGE + the epoch of a hand-over. */
  log: Record<Side, readonly number[]>;
  /** How much of a side's log is applied on the other side: moves in the transaction that applies. */
  mark: Record<Side, number>;
  coordinators: readonly Coordinator[];
}

const MESSAGE = 32;
const sides = ['monolith', 'service'] as const;

const start = (coordinators: number): State => ({
  monolith: { side: 'monolith', open: true, epoch: 1, minEpoch: 0 },
  service: { side: 'service', open: false, epoch: 0, minEpoch: 0 },
  written: 0,
  has: { monolith: 0, service: 0 },
  log: { monolith: [], service: [] },
  mark: { monolith: 0, service: 0 },
  coordinators: Array.from({ length: coordinators }, () => null),
});

/** Every state that can be reached, the nearest first. */
export function search(model: Model, limits: Limits): Finding {
  const first = start(limits.coordinators);
  const states: State[] = [first];
  const index = new Map<string, number>([[keyOf(first), 0]]);
  const cameFrom: { at: number; by: string }[] = [{ at: -1, by: 'start' }];
  const before: number[][] = [[]];
  const trace = (at: number): string[] => {
    const steps: string[] = [];
    for (let i = at; i > 0; i = cameFrom[i]!.at) steps.unshift(cameFrom[i]!.by);
    return steps;
  };
  for (let at = 0; at < states.length; at++) {
    for (const [by, next] of steps(states[at]!, model, limits)) {
      const key = keyOf(next);
      const known = index.get(key);
      if (known !== undefined) {
        before[known]!.push(at);
        continue;
      }
      index.set(key, states.length);
      states.push(next);
      cameFrom.push({ at, by });
      before.push([at]);
      const what = broken(next);
      if (what) return { states: states.length, violation: { what, trace: trace(states.length - 1) } };
    }
  }
  const stuck = firstStuck(states, before);
  return {
    states: states.length,
    ...(stuck !== undefined && { violation: { what: 'nobody can ever write again', trace: trace(stuck) } }),
  };
}

function broken({ monolith, service, written, has }: State): string | undefined {
  if (monolith.open && service.open) return 'two owners';
  for (const row of [monolith, service])
    if (row.open && has[row.side] !== written) return `${row.side} is open without the other's writes`;
  return undefined;
}

/** A state from which no state with an owner can be reached: found backwards from those that have one. */
function firstStuck(states: readonly State[], before: readonly (readonly number[])[]): number | undefined {
  const saved = new Uint8Array(states.length);
  const todo: number[] = [];
  states.forEach(({ monolith, service }, i) => {
    if (monolith.open || service.open) todo.push((saved[i] = 1) && i);
  });
  for (let i = todo.pop(); i !== undefined; i = todo.pop())
    for (const earlier of before[i]!) if (!saved[earlier]) todo.push((saved[earlier] = 1) && earlier);
  const at = saved.indexOf(0);
  return at < 0 ? undefined : at;
}

/** Everything that can happen next, in every order that processes, networks and deaths allow. */
function* steps(state: State, model: Model, limits: Limits): Generator<[string, State]> {
  for (const side of sides) {
    yield* writes(state, side);
    yield* deliveries(state, side, model);
  }
  for (let i = 0; i < state.coordinators.length; i++) yield* coordination(state, i, model, limits);
}

function* writes(state: State, side: Side): Generator<[string, State]> {
  const { open, epoch } = state[side];
  const bit = 1 << epoch;
  if (!open || state.written & bit) return;
  yield [
    `${side} writes`,
    {
      ...state,
      written: state.written | bit,
      has: { ...state.has, [side]: state.has[side] | bit },
      log: { ...state.log, [side]: [...state.log[side], epoch] },
    },
  ];
}

/** The bridge from `side`: what comes next in its log, or once more a message that it has carried before. */
function* deliveries(state: State, side: Side, model: Model): Generator<[string, State]> {
  const log = state.log[side];
  const mark = state.mark[side];
  const to = protocol.otherSide(side);
  const next = log[mark];
  if (next !== undefined) {
    const moved = { ...state, mark: { ...state.mark, [side]: mark + 1 } };
    yield [`the bridge applies ${name(next)} of ${side}`, applied(moved, to, next, model)];
    if (model.markApart) yield [`the bridge dies behind its mark at ${name(next)} of ${side}`, moved];
  }
  for (let i = 0; i < mark; i++) {
    const again = log[i]!;
    if (again >= MESSAGE) yield [`${name(again)} of ${side} comes again`, applied(state, to, again, model)];
  }
}

function applied(state: State, to: Side, entry: number, model: Model): State {
  if (entry < MESSAGE) return { ...state, has: { ...state.has, [to]: state.has[to] | (1 << entry) } };
  const opened = model.open(state[to], entry - MESSAGE);
  return opened ? { ...state, [to]: opened } : state;
}

function* coordination(state: State, i: number, model: Model, limits: Limits): Generator<[string, State]> {
  const who = `coordinator ${i + 1}`;
  const become = (coordinator: Coordinator, changed: Partial<State> = {}): State => ({
    ...state,
    ...changed,
    coordinators: state.coordinators.with(i, coordinator),
  });
  const coordinator = state.coordinators[i]!;
  if (coordinator === null) {
    for (const side of sides) yield [`${who} reads ${side}`, become({ read: state[side] })];
    return;
  }
  yield [`${who} dies`, become(null)];
  if ('read' in coordinator) {
    const read = coordinator.read;
    const rows = { [read.side]: read, [protocol.otherSide(read.side)]: state[protocol.otherSide(read.side)] };
    for (const plan of plans(rows as unknown as OwnerRows, model, limits))
      yield [`${who} plans ${JSON.stringify(plan)}`, become({ plan })];
    return;
  }
  // It keeps the plan: its request may have been lost, or only the answer, and it tries again.
  const { plan } = coordinator;
  const changed = carriedOut(state, plan, model);
  if (!changed) return;
  yield [`${who} does ${plan.do}`, become(coordinator, changed)];
  // Told that the other side is barred, it need not look again before it opens this one.
  if (plan.do === 'bar') {
    const back: Plan = { do: 'reopen', side: protocol.otherSide(plan.side), closedAt: plan.below - 1 };
    yield [`${who} does bar and goes on`, become({ plan: back }, changed)];
  }
}

/** What a coordinator may make of two rows, whatever it is told to want, and whatever it believes of the clock. */
function plans(rows: OwnerRows, model: Model, limits: Limits): Plan[] {
  const found = new Map<string, Plan>();
  for (const want of sides)
    for (const overdue of [false, true]) {
      const facts: HandoverFacts = { ready: true, overdue };
      let plan: Plan = model.nextStep(rows, want, facts);
      if (plan.do === 'close' && plan.expected >= limits.epochs) continue;
      if (plan.do === 'wait' && model.opensEarly) {
        const from = protocol.sourceOf(rows);
        plan = { do: 'open', side: protocol.otherSide(from), epoch: rows[from].epoch };
      }
      if (plan.do !== 'nothing' && plan.do !== 'wait' && plan.do !== 'prepare') found.set(JSON.stringify(plan), plan);
    }
  return [...found.values()];
}

function carriedOut(state: State, plan: Plan, model: Model): Partial<State> | undefined {
  if (plan.do === 'close') {
    const closed = model.close(state[plan.side], plan.expected, plan.to);
    if (!closed) return undefined;
    const log = [...state.log[plan.side], MESSAGE + closed.message.epoch];
    return { [plan.side]: closed.row, log: { ...state.log, [plan.side]: log } };
  }
  if (plan.do !== 'bar' && plan.do !== 'reopen' && plan.do !== 'open') return undefined;
  const row = state[plan.side];
  const moved =
    plan.do === 'bar'
      ? model.bar(row, plan.below)
      : plan.do === 'reopen'
        ? model.reopen(row, plan.closedAt)
        : model.open(row, plan.epoch);
  return moved ? { [plan.side]: moved } : undefined;
}

const name = (entry: number): string => (entry >= MESSAGE ? `hand-over ${entry - MESSAGE}` : `write ${entry}`);

/* A state in a few characters: the search is as fast as this. Coordinators are alike, so their order does not count. */
function keyOf(state: State): string {
  const { log, mark, has } = state;
  const coordinators = state.coordinators.map(coordinatorKey).sort((a, b) => a - b);
  return String.fromCharCode(
    rowKey(state.monolith),
    rowKey(state.service),
    state.written,
    has.monolith,
    has.service,
    mark.monolith,
    mark.service,
    ...log.monolith,
    MESSAGE * 2,
    ...log.service,
    MESSAGE * 2,
    ...coordinators,
  );
}

const rowKey = ({ open, epoch, minEpoch }: OwnerRow): number => (open ? 1 : 0) + epoch * 2 + minEpoch * 64;

const planKinds = ['close', 'bar', 'reopen', 'open'];

function coordinatorKey(coordinator: Coordinator): number {
  if (coordinator === null) return 0;
  if ('read' in coordinator) return 4096 + 2 * rowKey(coordinator.read) + sides.indexOf(coordinator.read.side);
  const plan = coordinator.plan as {
    do: string;
    side: Side;
    expected: number;
    below: number;
    closedAt: number;
    epoch: number;
  };
  const number = plan.expected ?? plan.below ?? plan.closedAt ?? plan.epoch;
  return 1 + planKinds.indexOf(plan.do) + 8 * sides.indexOf(plan.side) + 16 * number;
}
