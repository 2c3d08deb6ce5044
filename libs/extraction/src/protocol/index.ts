export { type HandoverAction, type HandoverFacts, type OwnerRows, nextStep, ownerOf, sourceOf } from './handover.js';
export { type HandoverMessage, type OwnerRow, bar, close, open, otherSide, reopen } from './owner.js';
export { streamName, streamPattern } from './stream.js';
