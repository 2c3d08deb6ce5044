import { describe, expect, it } from 'vitest';
import { searchTerms } from './catalog.search.js';

describe('searchTerms', () => {
  it.each([
    ['desk lam', 'desk:* & lam:*'],
    ["Müller's Öl", 'müller:* & s:* & öl:*'],
    ['lamp -red', ''],
    ['"desk lamp"', ''],
    ['lamp or torch', ''],
    ["!!! & | ( ) <-> :* '\\", ''],
    ['🦊', ''],
    ['oregano', 'oregano:*'],
  ])('%s is searched by the word starts [%s]', (text, prefixes) => {
    expect(searchTerms(text)).toEqual({ web: text, prefixes });
  });

  it('keeps what Postgres cannot take away from it', () => {
    expect(searchTerms('mu\0g \ud800')).toEqual({ web: 'mu g \ufffd', prefixes: 'mu:* & g:*' });
  });
});
