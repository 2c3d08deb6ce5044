import { createHmac, randomBytes } from 'node:crypto';
import { redactText } from '@banyan/platform/telemetry';

/*
 * Trap 27: nothing personal in a divergence. The values come from anybody's application, so the rule is a list of what
 * may stay, not of what has to go: numbers, booleans, ids, times, codes and the words of known enumerations. Of every
 * other text only the shape is kept, and a mark by which two texts can be told apart.
 */

const MAX_TEXT = 80;
const MAX_JSON = 400;
const MAX_DEPTH = 5;
const MAX_FIELDS = 20;

/** Only in this process: without it nobody can try out which name has a given mark. */
const salt = randomBytes(32);

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const TIME = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?$/;
const NUMBER = /^-?\d{1,12}(\.\d{1,6})?$/;
/** `KIT-0001`, `OUT_OF_STOCK`: capitals with digits or underscores; capitals alone may be a name. */
const CODE = /^(?=.*[\d_])[A-Z][A-Z0-9]{0,11}(?:[-_.][A-Z0-9]{1,12}){0,4}$/;
const WORD = /^[A-Za-z][a-zA-Z_-]{0,31}$/;
/** Fields whose words are the application's, not a person's. */
const WORDS_OF =
  /^(status|state|kind|type|code|currency|role|roles|verdict|outcome|method|version|stage|unit|alg|kty|crv|use)$/i;
/** Fields of which not even the shape is kept, whatever their type: one of these words, or a word that ends in one. */
const PERSONAL_WORDS = new Set(
  (
    'customer person user owner recipient contact mobile street city postcode postal zip country birth birthday ' +
    'gender card cardnumber pan cvc cvv iban cookie authorization authorisation session credential credentials ' +
    'ssn tax passport signature pin otp password passwd secret salary ip hash jwk private sealed'
  ).split(' '),
);
const PERSONAL_ENDING = /(name|mail|phone|address|password|token|secret|number|key)$/;
/** About a person by their words only: what the shop sells has a name, too, and an id tells nothing by itself. */
const HARMLESS = /^(productName|tokenType|trackingNumber|orderNumber|versionNumber|public_?key|kid)$|(Id|_id)$/;

function isPersonal(field: string): boolean {
  if (HARMLESS.test(field)) return false;
  if (/^line\d$/i.test(field)) return true;
  const words = field.split(/(?<=[a-z])(?=[A-Z])|[^A-Za-z]+/).map((word) => word.toLowerCase());
  return words.some((word) => PERSONAL_WORDS.has(word) || PERSONAL_ENDING.test(word));
}

const marked = (text: string): string => createHmac('sha256', salt).update(text).digest('hex').slice(0, 6);

/** The kind of characters a text is made of, and a mark: `Xxxxx Xxxxxxxx #1a2b3c`. */
function shapeOf(text: string): string {
  const shape = text
    .slice(0, MAX_TEXT)
    .replace(/\p{L}|\p{N}/gu, (letter) => (/\p{N}/u.test(letter) ? '9' : /\p{Lu}/u.test(letter) ? 'X' : 'x'));
  return `${shape}${text.length > MAX_TEXT ? `… (${text.length})` : ''} #${marked(text)}`;
}

function maskText(text: string, field: string): string {
  if (text === '' || UUID.test(text) || TIME.test(text)) return text;
  const plain = NUMBER.test(text) || CODE.test(text) || (WORDS_OF.test(field) && WORD.test(text));
  return plain && redactText(text) === text ? text : shapeOf(text);
}

function masked(value: unknown, field: string, depth: number): unknown {
  if (value === null || typeof value === 'boolean' || value === undefined) return value;
  if (isPersonal(field)) {
    // An object below such a name is personal as a whole: a marked text of the same length says nothing either.
    return value === '' ? '' : `[masked] #${marked(JSON.stringify(value, bigAsText))}`;
  }
  if (typeof value === 'string') return maskText(value, field);
  if (typeof value === 'number' || typeof value === 'bigint') {
    const text = String(value);
    return redactText(text) === text ? (typeof value === 'number' ? value : text) : shapeOf(text);
  }
  if (depth >= MAX_DEPTH) return '…';
  if (Array.isArray(value)) {
    const items = value.slice(0, MAX_FIELDS).map((item) => masked(item, field, depth + 1));
    return value.length > MAX_FIELDS ? [...items, `… (${value.length})`] : items;
  }
  return Object.fromEntries(
    Object.entries(value as object)
      .slice(0, MAX_FIELDS)
      .map(([name, item]) => [segment(name), masked(item, name, depth + 1)]),
  );
}

const bigAsText = (_key: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value);

/** The value at `pointer` as JSON without anything personal, 400 characters at most; null for undefined. */
export function maskValue(value: unknown, pointer: string): string | null {
  if (value === undefined) return null;
  const names = pointer.split('/').filter((part) => part !== '' && !/^\d+$/.test(part));
  // What stands below `shippingAddress` is part of an address, whatever it is called itself.
  const field = names.find(isPersonal) ?? names.at(-1) ?? '';
  const json = JSON.stringify(masked(value, field, 0));
  return json.length > MAX_JSON ? `${json.slice(0, MAX_JSON)}…` : json;
}

/** Field names are code; whatever else is used as a name (an e-mail address as a key of a map) is data. */
const segment = (name: string): string =>
  /^[A-Za-z_$][A-Za-z0-9_$-]{0,40}$/.test(name) || /^\d{1,6}$/.test(name) || CODE.test(name) ? name : '{key}';

const maskSegments = (pointer: string, change: (part: string) => string): string =>
  pointer
    .split('/')
    .map((part, at) => (at === 0 ? part : change(part)))
    .join('/');

/** A pointer with no data in it. */
export const maskPointer = (pointer: string): string => maskSegments(pointer, segment);

/** The place that all items of a list have in common: every index is a `*`. */
export const maskPath = (pointer: string): string =>
  maskSegments(pointer, (part) => (/^\d+$/.test(part) ? '*' : segment(part)));

/** What was asked: the words that the operation's own name holds, the rest masked. No query string. */
export function maskRequest(request: string, operation: string): string {
  if (request.startsWith('{')) {
    try {
      return maskValue(JSON.parse(request), '') ?? '';
    } catch {
      return shapeOf(request);
    }
  }
  const known = new Set(operation.split(/[\s/]+/));
  return maskSegments(request.split('?', 1)[0]!, (part) => (known.has(part) ? part : maskText(part, '')));
}
