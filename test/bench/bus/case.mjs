// Calls through our bus, and the floor below it.
import 'reflect-metadata';
import { defineContext, query } from '@banyan/kernel';
import { allLocal, newScope, runInScope } from '@banyan/messaging';
import { withRemoteParent } from '@banyan/platform/telemetry';
import { z } from 'zod';
// A whole app would need a database, and a query asks it for nothing.
import { Bus, Endpoint, unitOfWork } from '../../support/messaging-engine.mjs';
import { measureRounds } from '../rounds.mjs';
import { inputOf, schemas } from './toy.mjs';

const { Input, Output } = schemas(z);
const toy = defineContext('toy', {
  routes: [],
  queries: { quote: query({ input: Input, output: Output }) },
  commands: {},
  events: {},
  subscribes: [],
});
const service = {
  async quote({ id, quantity, price, currency }) {
    return { id, total: quantity * price, currency };
  },
};
const bus = new Bus(allLocal);
bus.serve(new Endpoint(toy, service, unitOfWork('toy')));
const client = bus.client(toy);

const actor = { kind: 'user', id: '019012d0-0000-7000-8000-00000000000a', roles: ['customer'] };
/** As inside of a request: there is an actor, a deadline and a trace. */
const inRequest = (work) =>
  withRemoteParent(undefined, 'request', undefined, () => runInScope(newScope(actor, Date.now() + 600_000), work));

const cases = {
  'banyan bus: validated, traced, timed, with a deadline': (i) => client.quote(inputOf(i)),
  'a function, validated': async (i) => Output.parse(await service.quote(Input.parse(inputOf(i)))),
};

const call = cases[process.argv[2]];
await measureRounds((n) =>
  inRequest(async () => {
    for (let i = 0; i < n; i++) await call(i);
  }),
);
