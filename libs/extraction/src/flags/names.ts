/** What all flags of ours begin with; only these are asked for. */
export const FLAG_PREFIX = 'extraction.';

/** The flag that says where a context is to be: off, or on with the stage as its variant. */
export const targetFlag = (context: string): string => `${FLAG_PREFIX}${context}`;

/** The gradual rollout that says which users' reads go to the service while the context is in canary. */
export const canaryFlag = (context: string): string => `${FLAG_PREFIX}${context}.canary`;
