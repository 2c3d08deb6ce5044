/** Longest wait that a client may ask for, seconds. */
const MAX_WAIT = 10;

/**
 * How long the client would rather wait than get an unfinished answer, in whole seconds, from a Prefer header
 * (RFC 7240, section 4.3); what is longer than 10 is cut. A preference that makes no sense is ignored, as the RFC says.
 */
export function preferredWait(header: string | undefined): number | undefined {
  // The first of several counts (RFC 7240, section 2).
  const wait = header?.split(',').map((preference) => /^\s*wait\s*=\s*"?(\d{1,9})"?\s*(;|$)/i.exec(preference)?.[1]);
  const seconds = wait?.find((value) => value !== undefined);
  return seconds === undefined ? undefined : Math.min(Number(seconds), MAX_WAIT);
}
