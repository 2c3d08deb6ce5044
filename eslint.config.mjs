import nx from '@nx/eslint-plugin';
import tseslint from 'typescript-eslint';

/*
 * What the compiler cannot see. Three kinds of rule:
 *  - who may import whom (also proved, file by file, by test/architecture/boundaries.spec.ts);
 *  - what would break determinism, transactions or configuration, each with the reason in its message;
 *  - typescript-eslint's recommended set, plus the type-aware rules about promises: a promise that nobody awaits
 *    inside a command runs after its transaction has ended.
 */

const contexts = ['catalog', 'identity', 'inventory', 'notifications', 'orders', 'payments', 'shipping'];
const foundation = ['type:kernel', 'type:contracts', 'type:messaging', 'type:platform'];

/** Every list names `type:testing`, because specs sit next to what they test; src files are kept off it below. */
const mayImport = {
  'type:kernel': ['type:kernel'],
  'type:contracts': ['type:contracts', 'type:kernel'],
  'type:platform': ['type:platform', 'type:kernel'],
  'type:messaging': ['type:messaging', 'type:platform', 'type:kernel'],
  ...Object.fromEntries(contexts.map((name) => [`context:${name}`, [`context:${name}`, ...foundation]])),
  'type:extraction': ['type:extraction', 'type:messaging', 'type:platform', 'type:kernel'],
  'type:replication': ['type:replication', 'type:platform', 'type:kernel'],
  'type:testing': [...foundation, ...contexts.map((name) => `context:${name}`)],
};

const specs = ['**/*.spec.ts', '**/*.spec-support.ts'];
const tooling = ['tools/**', 'test/**', '*.config.{ts,mjs}', 'libs/testing/**', ...specs];
const typescript = ['libs/**/*.ts', 'apps/**/*.ts', 'proxy/**/*.ts', 'test/**/*.ts', '*.config.ts'];

const unrepeatable =
  'Use ctx.newId() and ctx.now: a handler that is run again must make the same ids at the same time.';
const syntax = {
  exportAll: {
    selector: 'ExportAllDeclaration',
    message: 'Export by name: an index.ts is a door, and a door shows what goes through it.',
  },
  environment: {
    selector: 'MemberExpression[object.name="process"][property.name="env"]',
    message: 'Read settings from @banyan/platform/config: one typed config, validated once.',
  },
  unsafeSql: {
    selector: 'MemberExpression[property.name=/^\\$(query|execute)RawUnsafe$/]',
    message: 'Use the tagged template ($queryRaw, $executeRaw): it binds values, the Unsafe one pastes them.',
  },
  findUnique: {
    selector: 'CallExpression[callee.property.name=/^findUnique/]',
    message: 'Use findFirst: Prisma batches findUnique calls across requests, and so across transactions.',
  },
  prismaTransaction: {
    selector: 'CallExpression[callee.property.name="$transaction"]',
    message: 'The pipeline opens the one transaction of a command; queries join it by themselves.',
  },
  clock: {
    selector:
      'CallExpression[callee.object.name="Date"][callee.property.name="now"], NewExpression[callee.name="Date"][arguments.length=0]',
    message: unrepeatable,
  },
  chance: {
    selector:
      'CallExpression[callee.name=/^random(UUID|Bytes|Int)$/], CallExpression[callee.property.name=/^random(UUID|Bytes|Int)$/], CallExpression[callee.object.name="Math"][callee.property.name="random"]',
    message: unrepeatable,
  },
};
const everywhere = [syntax.exportAll, syntax.unsafeSql, syntax.findUnique, syntax.prismaTransaction];

const deepImport = {
  regex: '^@banyan/[^/]+/(src|dist)(/|$)',
  message: 'Import the library by its door: what index.ts exports is all there is.',
};
const unrepeatableImports = {
  paths: [
    { name: '@banyan/kernel', importNames: ['newId', 'systemClock'], message: unrepeatable },
    { name: 'uuid', message: unrepeatable },
  ],
};
const testingImport = {
  regex: '^@banyan/testing(/|$)',
  message: 'Only specs import the testing library.',
};

export default tseslint.config(
  { ignores: ['**/dist', '**/generated', '**/node_modules', '.nx', '.banyan'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: typescript,
    extends: [tseslint.configs.recommended],
    languageOptions: { parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', varsIgnorePattern: '^_', ignoreRestSiblings: true },
      ],
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': [
        'error',
        { checksVoidReturn: { arguments: false, attributes: false } },
      ],
      '@typescript-eslint/await-thenable': 'error',
      'no-restricted-syntax': ['error', ...everywhere, syntax.environment],
      'no-restricted-imports': ['error', { patterns: [deepImport, testingImport] }],
    },
  },
  {
    // Boundaries between projects, by the tags in each package.json.
    files: ['libs/**/*.ts', 'apps/**/*.ts', 'proxy/**/*.ts'],
    plugins: { '@nx': nx },
    rules: {
      '@nx/enforce-module-boundaries': [
        'error',
        {
          allow: [],
          // A library may be loaded late in one file and at once in another.
          checkDynamicDependenciesExceptions: ['.*'],
          // Apps may import everything but one another.
          depConstraints: [
            ...Object.entries(mayImport).map(([sourceTag, tags]) => ({
              sourceTag,
              onlyDependOnLibsWithTags: [...tags, 'type:testing'],
            })),
            { sourceTag: 'type:app', notDependOnLibsWithTags: ['type:app'] },
          ],
          // The testing library stands on what it helps to test: a circle only between a library and its specs.
          ignoredCircularDependencies: [
            'kernel',
            'contracts',
            'messaging',
            'platform',
            'extraction',
            'replication',
            ...contexts,
          ].map((name) => [`@banyan/${name}`, '@banyan/testing']),
        },
      ],
    },
  },
  {
    // Deterministic code: what a command replays on the other side has to come out the same.
    files: ['libs/contexts/**/domain/**/*.ts', 'libs/contexts/**/*.{service,events,store}.ts'],
    ignores: specs,
    rules: {
      'no-restricted-syntax': ['error', ...everywhere, syntax.environment, syntax.clock, syntax.chance],
      'no-restricted-imports': ['error', { ...unrepeatableImports, patterns: [deepImport, testingImport] }],
    },
  },
  {
    // The two places that touch the environment: one reads the settings, one hands them on to child processes.
    files: ['libs/platform/src/config/**/*.ts', 'apps/cli/src/child-environment.ts'],
    rules: { 'no-restricted-syntax': ['error', ...everywhere] },
  },
  {
    files: tooling,
    rules: {
      'no-restricted-syntax': ['error', syntax.exportAll],
      'no-restricted-imports': ['error', { patterns: [deepImport] }],
    },
  },
);
