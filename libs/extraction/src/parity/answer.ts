import { brotliDecompressSync, unzipSync } from 'node:zlib';

/** What one side answered to a read. */
export interface Answer {
  status: number;
  /** The Content-Type header; undefined when there was none. */
  contentType?: string;
  /** The Content-Encoding header, if the body is still encoded. */
  encoding?: string;
  body: Uint8Array;
}

/** A body that cannot be read as what it says it is. */
export const unreadable = Symbol('unreadable');

export const mediaTypeOf = (answer: Answer): string =>
  (answer.contentType ?? '').split(';', 1)[0]!.trim().toLowerCase();

/** The charset that matters: none, and UTF-8, are the same for everything that is compared here. */
export function charsetOf(answer: Answer): string {
  const charset = /;\s*charset="?([^";\s]+)/i.exec(answer.contentType ?? '')?.[1]?.toLowerCase() ?? 'utf-8';
  return charset === 'utf8' ? 'utf-8' : charset;
}

export const isJson = (answer: Answer): boolean => /[/+]json$/.test(mediaTypeOf(answer));

/** The body as it was before it was encoded, `limit` bytes at most; undefined when it cannot be had. */
export function plainBody({ encoding, body }: Answer, limit: number): Uint8Array | undefined {
  if (!encoding || encoding === 'identity') return body;
  try {
    // A compressed bomb ends at the limit (trap 20).
    if (encoding === 'br') return brotliDecompressSync(body, { maxOutputLength: limit });
    if (encoding === 'gzip' || encoding === 'deflate') return unzipSync(body, { maxOutputLength: limit });
  } catch {
    return undefined;
  }
  return undefined;
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * The JSON in a body, or `unreadable`. Whole numbers that a double cannot hold come out as BigInt: JSON.parse makes
 * one of 9007199254740993 and 9007199254740992, and a wrong id would go unseen.
 */
export function readJson(body: Uint8Array): unknown {
  try {
    const text = utf8.decode(body);
    return /\d{16}/.test(text) ? JSON.parse(text, exactNumber) : JSON.parse(text);
  } catch {
    return unreadable;
  }
}

/* Node hands the source text of a primitive to a reviver; the type library does not know yet. */
function exactNumber(_key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source;
  return typeof value === 'number' && source && /^-?\d{16,}$/.test(source) && !Number.isSafeInteger(value)
    ? BigInt(source)
    : value;
}
