/** What a reader typed, as the two texts that Postgres makes queries from. */
export interface SearchTerms {
  /** For websearch_to_tsquery, which takes any text: words, "phrases", or, -not. */
  web: string;
  /** For to_tsquery: every word as the start of one (`lam:* & des:*`); empty when there is no word. */
  prefixes: string;
}

/** More words than this are not searched as word starts: each is a scan of the index. */
const maxPrefixes = 8;

/**
 * Operators mean that somebody chose the words with care: `lamp -red` must not find red lamps again as word starts.
 * A NUL cannot be sent to Postgres; it is read as a space.
 */
export function searchTerms(text: string): SearchTerms {
  const web = text.replaceAll('\0', ' ').toWellFormed();
  const operators = /"|(^|\s)-|(^|\s)or(\s|$)/i.test(web);
  const words = operators ? [] : (web.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []);
  return {
    web,
    prefixes: words
      .slice(0, maxPrefixes)
      .map((word) => `${word}:*`)
      .join(' & '),
  };
}
