export { Config, ConfigError, loadConfig, readConfig } from './config.js';
export { ConfigModule } from './config.module.js';
export { keptSecret } from './kept-secret.js';
