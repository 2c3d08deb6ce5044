const CODES = new Set<unknown>([
  'ECONNREFUSED',
  'UND_ERR_CONNECT_TIMEOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
]);

/** Whether an error of Node's or undici's says that nobody listened, or nobody knows where: then nothing was sent. */
export const neverConnected = (error: unknown): boolean =>
  CODES.has((error as { code?: unknown } | null | undefined)?.code);
