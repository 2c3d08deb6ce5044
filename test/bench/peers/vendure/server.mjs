process.env.VENDURE_DISABLE_TELEMETRY = 'true';
const { bootstrap } = await import('@vendure/core');
const { configOf } = await import('./config.mjs');

const app = await bootstrap(configOf(JSON.parse(process.env.BENCH_CASE)));
process.on('SIGTERM', () => app.close().finally(() => process.exit(0)));
process.on('disconnect', () => process.exit(0));
process.send('ready');
