/** `--name=value`, `--name value` and `--flag` over `defaults` (numbers where the default is one), the rest as `words`. Throws on an unknown name. */
export function options(defaults, argv) {
  const given = { ...defaults };
  const words = [];
  for (let i = 0; i < argv.length; i++) {
    const match = /^--(no-)?([\w-]+)(?:=(.*))?$/.exec(argv[i]);
    if (!match) {
      words.push(argv[i]);
      continue;
    }
    const [, no, name, inline] = match;
    if (!(name in defaults)) throw new Error(`Unknown option --${name}. Known: ${Object.keys(defaults).join(', ')}`);
    if (typeof defaults[name] === 'boolean') given[name] = !no;
    else {
      const value = inline ?? argv[++i];
      given[name] = typeof defaults[name] === 'number' ? Number(value) : value;
      if (Number.isNaN(given[name])) throw new Error(`--${name} takes a number`);
    }
  }
  return { ...given, words };
}

/** The options of a run that repeats one with these: the same, and the seed that it took. */
export function sameAgain(argv, seed) {
  const kept = argv.filter((arg, i) => !/^--seed(=|$)/.test(arg) && argv[i - 1] !== '--seed');
  return [...kept, `--seed=${seed}`].join(' ');
}

/** The same numbers for the same seed (mulberry32): a run can be repeated. */
export function randomFrom(seed) {
  let state = seed | 0;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
  const below = (n) => Math.floor(next() * n);
  return {
    next,
    below,
    between: (low, high) => low + next() * (high - low),
    chance: (share) => next() < share,
    one: (list) => list[below(list.length)],
  };
}

export const sorted = (values) => values.filter(Number.isFinite).toSorted((a, b) => a - b);
export const median = (values) => quantile(values, 0.5);
export function quantile(values, q) {
  const all = sorted(values);
  if (all.length === 0) return NaN;
  if (q === 0.5 && all.length % 2 === 0) return (all[all.length / 2 - 1] + all[all.length / 2]) / 2;
  return all[Math.min(all.length - 1, Math.max(0, Math.ceil(q * all.length) - 1))];
}

/** A number as people read it: 19,204 or 0.52; a dash for what was not measured. */
export const figure = (value, digits = value < 10 ? 2 : value < 100 ? 1 : 0) =>
  Number.isFinite(value)
    ? value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
    : '–';

/** A Markdown table; the first column is text, the others stand to the right. */
export function table(head, rows) {
  const all = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, i) => Math.max(...all.map((row) => row[i].length)));
  const line = (row) =>
    `| ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join(' | ')} |`;
  const rule = `|${widths.map((width, i) => '-'.repeat(width + 1) + (i === 0 ? '-' : ':')).join('|')}|`;
  return [line(all[0]), rule, ...all.slice(1).map(line)].join('\n');
}
