import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import swc from 'unplugin-swc';
import { defineConfig } from 'vitest/config';

// The same compiler settings as the build, except that the build leaves specs out and here they are the point.
const { exclude: _, $schema: __, ...settings } = JSON.parse(readFileSync('.swcrc', 'utf8'));

export default defineConfig({
  plugins: [swc.vite({ ...settings, swcrc: false })],
  // Not plain `source`: npm packages ship their TypeScript under that.
  resolve: { conditions: ['banyan-source'] },
  ssr: { resolve: { conditions: ['banyan-source'] } },
  test: {
    include: ['libs/**/*.spec.ts', 'apps/**/*.spec.ts', 'proxy/**/*.spec.ts', 'test/**/*.spec.ts'],
    globalSetup: ['tools/generate.mjs', 'libs/testing/src/global-setup.ts'],
    pool: 'forks',
    // More than there are cores: most specs wait for processes and databases.
    maxWorkers: Math.max(5, Math.ceil(availableParallelism() * 1.5)),
    // What hangs is to be found, what is slow is not.
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
