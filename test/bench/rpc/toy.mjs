import { defineContext, query } from '@banyan/kernel';
import { loadConfig } from '@banyan/platform/config';
import { z } from 'zod';
import { inputOf, schemas } from '../bus/toy.mjs';

const { Input, Output } = schemas(z);
export const toy = defineContext('toy', {
  routes: [],
  queries: { quote: query({ input: Input, output: Output }) },
  commands: {},
  events: {},
  subscribes: [],
});
export { inputOf };
export const quote = ({ id, quantity, price, currency }) => ({ id, total: quantity * price, currency });
export const config = loadConfig({ BANYAN_SECRET: 'what all processes of this bench share' });
/** Nothing but the message: the subject of the peers. */
export const RAW = 'bench.raw';
export const NEST = 'bench.nest';
