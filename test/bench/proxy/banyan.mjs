// Our proxy as it runs in a canary: the routes of the contracts, a flag evaluated for each request, the access log on.
import { openSync } from 'node:fs';
import { contracts } from '@banyan/contracts';
import { staticCanary } from '@banyan/extraction/flags';
import { ReadOperations } from '@banyan/extraction/parity';
import { AccessLog, Directory, Proxy, routesOfContracts } from '@banyan/proxy';
import { destination } from 'pino';

const { UPSTREAM, CANDIDATE = UPSTREAM, STAGE = 'canary', SHARE = '0', PERCENT = '50' } = process.env;
const rpc = [{ host: '127.0.0.1', port: 1 }];
const state = (stage) => ({
  ...{ stage, owner: 'monolith', epoch: 1, holding: false, since: '2026-01-01T00:00:00.000Z' },
  service: stage === 'monolith' ? null : { http: [CANDIDATE], rpc },
});
const routing = {
  revision: 1,
  monolith: { http: [UPSTREAM], rpc },
  contexts: Object.fromEntries(contracts.map(({ name }) => [name, state(name === 'inventory' ? STAGE : 'monolith')])),
};
const canary = staticCanary({ inventory: Number(PERCENT) });
await canary.start();
const proxy = new Proxy({
  directory: new Directory(routesOfContracts(), [UPSTREAM], { current: () => routing, onChange: () => () => {} }),
  canary,
  operations: new ReadOperations(contracts),
  limits: { requestsPerSocket: 0 },
  mirror: { share: Number(SHARE) },
  access: new AccessLog('info', destination({ fd: openSync('/dev/null', 'w'), sync: false, minLength: 8_192 })),
});
await proxy.listen(0, '127.0.0.1');
process.send({ port: proxy.port });
process.on('message', () => process.exit());
process.on('disconnect', () => process.exit());
