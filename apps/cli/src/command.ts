import { type ArgsDef, type CommandDef, type ParsedArgs, defineCommand } from 'citty';
import { CommandError } from './exit.js';
import { Screen } from './screen.js';

const json = {
  type: 'boolean',
  description: 'One JSON object a line, the last one the result',
  default: false,
} as const;

/**
 * A command with `--json`, and strict: an option or a word that it does not know ends it before it does anything, where
 * citty would ignore it. Whatever it throws is told by main.ts.
 */
export function command<const A extends ArgsDef>(of: {
  name: string;
  description: string;
  args: A;
  run: (args: ParsedArgs<A & { json: typeof json }>, screen: Screen) => Promise<void>;
}): CommandDef<A & { json: typeof json }> {
  const args = { ...of.args, json };
  return defineCommand<A & { json: typeof json }>({
    meta: { name: of.name, description: of.description },
    args,
    async run(context) {
      refuseUnknown(of.name, context.args, args);
      await of.run(context.args as never, new Screen(context.args.json === true));
    },
  });
}

function refuseUnknown(name: string, given: { _: string[] }, known: ArgsDef): void {
  const names = Object.entries(known).flatMap(([name, arg]) =>
    'alias' in arg ? [name, arg.alias ?? []].flat() : [name],
  );
  const spellings = new Set([
    '_',
    ...names,
    ...names.map((each) => each.replace(/-(\w)/g, (_, c: string) => c.toUpperCase())),
  ]);
  const unknown = Object.keys(given).find((each) => !spellings.has(each));
  const words = Object.values(known).filter(({ type }) => type === 'positional').length;
  const next = `banyan ${name} --help lists what it takes.`;
  if (unknown) throw new CommandError('BAD_USAGE', `banyan ${name} knows no --${unknown}:`, next);
  const extra = given._[words];
  if (extra !== undefined)
    throw new CommandError('BAD_USAGE', `banyan ${name} does not know what to do with ${extra}:`, next);
}

/** A word that has to be one of a few. */
export function oneOf<const T extends string>(what: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((each) => each === value);
  if (found) return found;
  throw new CommandError('BAD_USAGE', `There is no ${what} ${value}:`, `take one of ${allowed.join(', ')}.`);
}

/** A number within bounds. */
export function numberOf(name: string, value: string, least: number, most: number): number {
  const number = Number(value);
  if (value.trim() !== '' && number >= least && number <= most) return number;
  throw new CommandError(
    'BAD_USAGE',
    `--${name} takes a number from ${least} to ${most}, and ${value} is none:`,
    'say it again.',
  );
}
