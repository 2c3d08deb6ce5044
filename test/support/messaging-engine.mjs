// The engine of messaging, below its door: for programs that have no app around it.
import { UnitOfWork } from '../../libs/messaging/dist/unit-of-work.js';

export { Bus } from '../../libs/messaging/dist/bus.js';
export { Endpoint } from '../../libs/messaging/dist/endpoint.js';
export { Inbox } from '../../libs/messaging/dist/inbox.js';
export { Relay, relayDefaults } from '../../libs/messaging/dist/relay.js';
export { takeTurn } from '../../libs/messaging/dist/turn.js';

/** The transactions of a context in the monolith; `subscribers` hear of its events, and `wake` that there is one. */
export const unitOfWork = (context, database, { subscribers = [], wake = () => {} } = {}) =>
  new UnitOfWork(context, database, 'monolith', () => subscribers, wake);
