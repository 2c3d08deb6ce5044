import type { AnswerHeaders } from './attempt.js';

/** Who is told what an answer holds. */
export interface AnswerSink {
  head(status: number, headers: AnswerHeaders): void;
  piece(chunk: Buffer): void;
  /** The answer has ended; may its connection be used again? */
  whole(reusable: boolean): void;
  /** This is no answer that could be passed on. Nothing more is told. */
  malformed(message: string): void;
}

const MOST_HEAD_BYTES = 64 * 1024;
const MOST_LINE_BYTES = 4 * 1024;
const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/;
const TOKEN = /^[\w!#$%&'*+.^`|~-]+$/;
const CHUNK_SIZE = /^([\da-fA-F]{1,8})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?$/;
const CRLF2 = '\r\n\r\n';

/** Names as upstreams spell them, in lower case: a lookup costs less than making it again. */
const known = new Map<string, string>();

/**
 * Reads HTTP/1.1 answers (RFC 9112) strictly: an answer with two lengths, folded lines or bytes behind its end is an
 * error and ends the connection, because the next one on it might be somebody else's.
 */
export class AnswerReader {
  #state: 'head' | 'length' | 'close' | 'size' | 'chunk' | 'chunk-end' | 'trailers' | 'over' = 'over';
  /** What has come of a head or a line that is not complete. */
  #rest: Buffer | undefined;
  #left = 0;
  #keepAlive = false;
  #toHead = false;
  #whole = false;

  constructor(private readonly sink: AnswerSink) {}

  /** The next answer is to a request that was just sent. */
  begin(toHead: boolean): void {
    this.#state = 'head';
    this.#rest = undefined;
    this.#toHead = toHead;
  }

  /** Tells nothing more. */
  stop(): void {
    this.#state = 'over';
    this.#whole = false;
    this.#rest = undefined;
  }

  /** The body lasts until the connection ends. */
  get endsWithConnection(): boolean {
    return this.#state === 'close';
  }

  /** The connection has ended. */
  end(): void {
    if (this.#state !== 'close') return;
    this.#state = 'over';
    this.sink.whole(false);
  }

  read(input: Buffer): void {
    let chunk = this.#rest ? Buffer.concat([this.#rest, input]) : input;
    this.#rest = undefined;
    while (chunk.length > 0 && this.#state !== 'over') {
      const used = this.#step(chunk);
      if (used < 0) {
        this.#rest = chunk;
        return;
      }
      chunk = used === chunk.length ? EMPTY : chunk.subarray(used);
    }
    if (!this.#whole) return;
    this.#whole = false;
    // Told when everything is read: bytes behind the end would be taken for the next answer.
    this.sink.whole(this.#keepAlive && chunk.length === 0);
  }

  /** Bytes used of `chunk`; -1: more are needed. */
  #step(chunk: Buffer): number {
    switch (this.#state) {
      case 'head':
        return this.#head(chunk);
      case 'length':
      case 'chunk':
        return this.#piece(chunk);
      case 'close':
        this.sink.piece(chunk);
        return chunk.length;
      case 'size':
        return this.#size(chunk);
      case 'chunk-end':
        if (chunk.length < 2) return -1;
        if (chunk[0] !== 13 || chunk[1] !== 10) return this.#malformed('a chunk is longer than it says', chunk);
        this.#state = 'size';
        return 2;
      case 'trailers':
        return this.#trailer(chunk);
      case 'over':
        return chunk.length;
    }
  }

  #head(chunk: Buffer): number {
    const end = chunk.indexOf(CRLF2);
    if (end < 0 || end > MOST_HEAD_BYTES) {
      if (chunk.length > MOST_HEAD_BYTES) return this.#malformed('the head of the answer is too long', chunk);
      // Whoever does not begin like this will never get there.
      return chunk.length >= 7 && chunk.toString('latin1', 0, 7) !== 'HTTP/1.'
        ? this.#malformed('no HTTP/1.1', chunk)
        : -1;
    }
    const lines = chunk.toString('latin1', 0, end).split('\r\n');
    const [, minor, code] = STATUS_LINE.exec(lines[0]!) ?? [];
    if (code === undefined) return this.#malformed('no HTTP/1.1', chunk);
    const headers: AnswerHeaders = {};
    for (let at = 1; at < lines.length; at++)
      if (!addHeader(headers, lines[at]!)) return this.#malformed('a header makes no sense', chunk);
    const status = Number(code);
    if (status === 101) return this.#malformed('an upgrade that nobody asked for', chunk);
    // Informational: the answer is still to come.
    if (status < 200) return end + 4;
    const framing = this.#framing(status, headers, minor === '0');
    if (framing !== undefined) return this.#malformed(framing, chunk);
    const none = this.#state === 'length' && this.#left === 0;
    this.sink.head(status, headers);
    if (none) this.#finish();
    return end + 4;
  }

  /** Settles what follows the head (RFC 9112, 6.3), or says why nobody can know. */
  #framing(status: number, headers: AnswerHeaders, old: boolean): string | undefined {
    const { connection, 'content-length': length, 'transfer-encoding': coding } = headers;
    this.#keepAlive = !old && (connection === undefined || !/(?:^|,)\s*close\s*(?:,|$)/i.test(String(connection)));
    this.#left = 0;
    this.#state = 'length';
    if (length !== undefined && (typeof length !== 'string' || !/^\d{1,15}$/.test(length)))
      return 'the length is no number';
    if (this.#toHead || status === 204 || status === 304) return undefined;
    if (coding !== undefined) {
      if (length !== undefined) return 'the answer has two lengths';
      if (typeof coding !== 'string' || coding.toLowerCase() !== 'chunked') return 'an unknown transfer encoding';
      this.#state = 'size';
    } else if (length !== undefined) this.#left = Number(length);
    else this.#state = 'close';
    return undefined;
  }

  #piece(chunk: Buffer): number {
    const piece = chunk.length <= this.#left ? chunk : chunk.subarray(0, this.#left);
    this.#left -= piece.length;
    const chunked = this.#state === 'chunk';
    const last = this.#left === 0;
    if (chunked && last) this.#state = 'chunk-end';
    this.sink.piece(piece);
    if (!chunked && last && this.#state === 'length') this.#finish();
    return piece.length;
  }

  #size(chunk: Buffer): number {
    const end = chunk.indexOf('\r\n');
    if (end < 0) return chunk.length > MOST_LINE_BYTES ? this.#malformed('the size of a chunk is too long', chunk) : -1;
    const [, size] = CHUNK_SIZE.exec(chunk.toString('latin1', 0, end)) ?? [];
    if (size === undefined) return this.#malformed('the size of a chunk is no number', chunk);
    this.#left = Number.parseInt(size, 16);
    this.#state = this.#left === 0 ? 'trailers' : 'chunk';
    return end + 2;
  }

  /** Trailers are dropped: they come after every decision that was made by the headers. */
  #trailer(chunk: Buffer): number {
    const end = chunk.indexOf('\r\n');
    if (end < 0) return chunk.length > MOST_HEAD_BYTES ? this.#malformed('a trailer is too long', chunk) : -1;
    if (end === 0) this.#finish();
    return end + 2;
  }

  #finish(): void {
    this.#state = 'over';
    this.#whole = true;
  }

  #malformed(message: string, chunk: Buffer): number {
    this.#state = 'over';
    this.sink.malformed(message);
    return chunk.length;
  }
}

const EMPTY = Buffer.alloc(0);

function addHeader(headers: AnswerHeaders, line: string): boolean {
  const at = line.indexOf(':');
  if (at <= 0) return false;
  const spelled = line.slice(0, at);
  let name = known.get(spelled);
  if (name === undefined) {
    if (!TOKEN.test(spelled)) return false;
    name = spelled.toLowerCase();
    if (known.size < 1_000) known.set(spelled, name);
  }
  const value = line.slice(at + 1).trim();
  const before = headers[name];
  headers[name] = before === undefined ? value : typeof before === 'string' ? [before, value] : [...before, value];
  return true;
}
