/**
 * Keeps secrets and personal data out of logs and spans (trap 27).
 *
 * It works on the finished log line and not on the objects that go into it: child bindings, error properties, a
 * driver's error detail and printf arguments all end up in the line, so nothing can get around it. A line without
 * anything suspicious costs one scan (2 us for an access log line); only a suspicious one is parsed and walked (4 us more).
 */
export const REDACTED = '[redacted]';

/** Names that hold a secret wherever they occur in a key (compared without case, `-` and `_`). */
const SECRET_PARTS = [
  'password',
  'passwd',
  'passphrase',
  'secret',
  'token',
  'authorization',
  'cookie',
  'credential',
  'apikey',
  'privatekey',
  'idempotencykey',
  'cardnumber',
  'cardholder',
  'email',
  'phone',
  'shippingaddress',
  'paymentmethod',
];
/** Short names that are secret only as the whole key: `pan` must not catch `company`, nor `card` `cardinality`. */
const SECRET_NAMES = new Set(['card', 'pan', 'cvc', 'cvv', 'iban', 'jwt', 'signature', 'pass', 'pwd', 'otp', 'pin']);
/** Keys that contain a secret part but say nothing secret. */
const HARMLESS_NAMES = new Set(['tokentype', 'passwordchangedat', 'tokenendpoint']);

const MAX_TEXT = 32_768;

const secretKeys = new Map<string, boolean>();

function isSecretKey(key: string): boolean {
  let secret = secretKeys.get(key);
  if (secret === undefined) {
    const name = key.toLowerCase().replace(/[^a-z0-9]/g, '');
    secret = SECRET_NAMES.has(name) || (!HARMLESS_NAMES.has(name) && SECRET_PARTS.some((part) => name.includes(part)));
    // Keys can come from input (a JSON body in an error), so the memory of them is bounded.
    if (secretKeys.size < 5_000) secretKeys.set(key, secret);
  }
  return secret;
}

const EMAIL = /[^\s"'<>()[\]{},;:=\\/@]{1,64}@(?:[\p{L}\p{N}][\p{L}\p{N}-]{0,62}\.)+\p{L}{2,24}/gu;
const ENCODED_EMAIL = /[\w.+-]{1,64}%40(?:[a-z0-9][a-z0-9-]{0,62}\.)+[a-z]{2,24}/gi;
const JWT = /\beyJ[\w-]{5,4096}\.[\w-]{5,}(?:\.[\w-]*)?/g;
const SCHEME = /\b(bearer|basic|digest)\s+[\w.~+/=-]{6,}/gi;
const PROVIDER_TOKEN = /\btok_\w+/g;
const URL_LOGIN = /(:\/\/[^\s:/@]*:)[^\s/@]+@/g;
const CARD = /(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])/g;
const PEM = /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g;
/** A header line in a text: these two hold spaces and semicolons, so all of the line goes. */
const HEADER_LINE = /((?:cookie|authorization)\\?["']?\s*[:=]\s*\\?["']?)[^\n"'\\]+/gi;
/** `password=…`, `"refreshToken": "…"`, `Idempotency-Key: …` inside a text, also in JSON that was put into a text. */
const ASSIGNMENT =
  /((?:pass(?:word|wd|phrase)|secret|token|authorization|cookie|api[-_]?key|idempotency[-_]?key|card[-_]?number|cvc|cvv)[\w-]{0,32}\\?["']?\s*[=:]\s*)(\\?"[^"]*"|'[^']*'|[^\s,;&}"']+)/gi;
/** Postgres puts the values of the row into its error details. */
const ROW_DETAIL = /(Key \([^)]*\)=)\(.{0,2000}?\)(?= |$)|(Failing row contains )\([^\n]*\)/g;

/** Anything that makes a line worth a closer look. It may be wrong in one direction only. */
const SUSPICIOUS = new RegExp(
  [
    '@',
    '%40',
    'eyJ',
    'tok_',
    'pass|secret|token|authorization|cookie|credential|api.?key|private.?key|idempotency|card|email|e-mail|e_mail|phone',
    'shipping.?address|payment.?method|"(?:pan|cvc|cvv|iban|jwt|signature|pwd|otp|pin)"',
    'bearer|basic |digest ',
    '\\d(?:[ -]?\\d){12}',
    'Key \\(|Failing row',
    'cvc|cvv',
    'PRIVATE KEY',
  ].join('|'),
  'i',
);

/** The text without e-mail addresses, tokens, card numbers, passwords in URLs, and `secret=value` pairs. */
export function redactText(text: string): string {
  // Nobody reads more of it, and the patterns must not become a way to keep the process busy.
  if (text.length > MAX_TEXT) return `${redactText(text.slice(0, MAX_TEXT))}… (${text.length} characters)`;
  if (!SUSPICIOUS.test(text) && !text.includes('://')) return text;
  return text
    .replace(PEM, REDACTED)
    .replace(URL_LOGIN, `$1${REDACTED}@`)
    .replace(ROW_DETAIL, (_all, key?: string, row?: string) => `${key ?? row}(${REDACTED})`)
    .replace(HEADER_LINE, `$1${REDACTED}`)
    .replace(SCHEME, `$1 ${REDACTED}`)
    .replace(JWT, REDACTED)
    .replace(ASSIGNMENT, (all, name: string, value: string) => (value.startsWith('[redacted') ? all : name + REDACTED))
    .replace(EMAIL, REDACTED)
    .replace(ENCODED_EMAIL, REDACTED)
    .replace(PROVIDER_TOKEN, REDACTED)
    .replace(CARD, (digits) => (isCardNumber(digits) ? REDACTED : digits));
}

/** A copy of plain data without secrets, at any depth: by key, and by value in every text. */
export function redactValue(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return redactText(value);
  if (typeof value !== 'object' || value === null) return value;
  if (depth > 20) return REDACTED;
  if (Array.isArray(value)) return value.map((item) => redactValue(item, depth + 1));
  const copy: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    copy[redactText(key)] = isSecretKey(key) && hasContent(item) ? REDACTED : redactValue(item, depth + 1);
  }
  return copy;
}

/** One finished JSON log line (with its line break) without secrets. */
export function redactLine(line: string): string {
  if (!SUSPICIOUS.test(line) && !line.includes('://')) return line;
  try {
    return JSON.stringify(redactValue(JSON.parse(line))) + '\n';
  } catch {
    // Not JSON (a broken serializer): a line is never let through unseen.
    return redactText(line);
  }
}

/** `token: null` or `hasPassword: true` tells something useful and nothing secret. */
function hasContent(value: unknown): boolean {
  return value !== null && value !== undefined && value !== '' && typeof value !== 'boolean';
}

/** Luhn's check digit: other long numbers (an LSN, a time in ns) stay readable nine times in ten. */
function isCardNumber(text: string): boolean {
  let sum = 0;
  let double = false;
  for (let i = text.length - 1; i >= 0; i--) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) continue;
    const value = double ? digit * 2 : digit;
    sum += value > 9 ? value - 9 : value;
    double = !double;
  }
  return sum % 10 === 0;
}
