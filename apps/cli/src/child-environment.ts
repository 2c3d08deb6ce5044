/**
 * What a child is started with: our own environment and the given settings above it. Children read their settings from
 * the environment, so this is the one place outside the config library that touches it.
 */
export function childEnvironment(settings: Record<string, string>): NodeJS.ProcessEnv {
  return { ...process.env, ...settings };
}

/** Was this process started by `npm start` (or npx), which then is its parent for as long as it lives? */
export const startedByNpm = (): boolean => process.env.npm_lifecycle_event !== undefined;
