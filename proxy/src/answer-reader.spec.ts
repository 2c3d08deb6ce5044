import { describe, expect, it } from 'vitest';
import { AnswerReader } from './answer-reader.js';

/** What is told of an answer that arrives in those pieces. */
function told(pieces: Buffer[], { toHead = false, closes = false } = {}) {
  const all = { head: undefined as unknown, body: '', end: 'none' };
  const reader = new AnswerReader({
    head: (status, headers) => (all.head = { status, headers: { ...headers } }),
    piece: (chunk) => (all.body += chunk.toString('latin1')),
    whole: (reusable) => (all.end = reusable ? 'reusable' : 'last'),
    malformed: () => (all.end = 'malformed'),
  });
  reader.begin(toHead);
  for (const piece of pieces) reader.read(piece);
  if (closes) reader.end();
  return all;
}

const answers: Record<string, { text: string; body: string; end: string; toHead?: boolean; closes?: boolean }> = {
  'a length': {
    text: 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\nX: b\r\n\r\nhello',
    body: 'hello',
    end: 'reusable',
  },
  'no body': { text: 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n', body: '', end: 'reusable' },
  'no reason': { text: 'HTTP/1.1 200\r\ncontent-length: 1\r\n\r\nx', body: 'x', end: 'reusable' },
  '204': { text: 'HTTP/1.1 204 No Content\r\n\r\n', body: '', end: 'reusable' },
  '304 with a length': { text: 'HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n', body: '', end: 'reusable' },
  'to HEAD': { text: 'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n', body: '', end: 'reusable', toHead: true },
  chunks: {
    text: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n6;x="y"\r\n world\r\n0\r\nT: 1\r\n\r\n',
    ...{ body: 'hello world', end: 'reusable' },
  },
  'hints before it': {
    text: 'HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx',
    ...{ body: 'x', end: 'reusable' },
  },
  'until it closes': { text: 'HTTP/1.1 200 OK\r\n\r\nhello', body: 'hello', end: 'last', closes: true },
  'the last one': {
    text: 'HTTP/1.1 200 OK\r\nConnection: x, Close\r\ncontent-length: 1\r\n\r\nx',
    body: 'x',
    end: 'last',
  },
  'HTTP/1.0': { text: 'HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx', body: 'x', end: 'last' },
};

const refused: Record<string, string> = {
  'another protocol': 'SSH-2.0-OpenSSH\r\n\r\n',
  'another version': 'HTTP/2.0 200 OK\r\n\r\n',
  'a status of four digits': 'HTTP/1.1 2000 OK\r\n\r\n',
  'two lengths': 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx',
  'a length and chunks': 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
  'an unknown coding': 'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
  'a length that is none': 'HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx',
  'a folded header': 'HTTP/1.1 200 OK\r\nx: a\r\n b: c\r\n\r\n',
  'a name with a space': 'HTTP/1.1 200 OK\r\nx : a\r\n\r\n',
  'a chunk size that is none': 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+1\r\nx\r\n',
  'a chunk that is too long': 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxyz\r\n',
  'an upgrade': 'HTTP/1.1 101 Switching Protocols\r\n\r\n',
  'an endless head': `HTTP/1.1 200 OK\r\nx: ${'x'.repeat(70_000)}`,
};

describe('answers, however they are cut', () => {
  it.each(Object.entries(answers))('%s', (_, { text, body, end, ...options }) => {
    const bytes = Buffer.from(text, 'latin1');
    const whole = told([bytes], options);
    expect(whole).toMatchObject({ body, end });
    for (let at = 1; at < bytes.length; at++)
      expect(told([bytes.subarray(0, at), bytes.subarray(at)], options)).toEqual(whole);
    expect(
      told(
        [...bytes].map((byte) => Buffer.from([byte])),
        options,
      ),
    ).toEqual(whole);
  });

  it('headers given twice stay apart', () => {
    expect(told([Buffer.from(answers['a length']!.text)]).head).toEqual({
      status: 200,
      headers: { 'content-length': '5', x: ['a', 'b'] },
    });
  });

  it.each(Object.entries(refused))('%s is refused', (_, text) => {
    const bytes = Buffer.from(text, 'latin1');
    expect(told([bytes]).end).toBe('malformed');
    if (bytes.length < 1_000) expect(told([...bytes].map((byte) => Buffer.from([byte]))).end).toBe('malformed');
  });

  it('bytes behind the end are nobody’s answer', () => {
    const text = `${answers['a length']!.text}HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n`;
    expect(told([Buffer.from(text)])).toMatchObject({ body: 'hello', end: 'last' });
  });
});
