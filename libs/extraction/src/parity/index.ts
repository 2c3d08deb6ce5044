export type { Answer } from './answer.js';
export { type Difference, type DifferenceKind, compare, compareValues } from './compare.js';
export { type Acknowledgement, Divergence, Ledger, type Sighting, mergeDivergences } from './divergence.js';
export { Figures, type Outcome, type Verdict } from './figures.js';
export { type AskOptions, Mirror, type MirrorOptions, type Sample, TooLarge, mirrorDefaults } from './mirror.js';
export { ReadOperations, httpReadsOf, isOperation, requiredOperations } from './operations.js';
export {
  ContextReport,
  Counts,
  type Evidence,
  Report,
  type TrafficFigures,
  addCounts,
  mergeReports,
  noCounts,
} from './report.js';
export { Rules, joinRules } from './rules.js';
