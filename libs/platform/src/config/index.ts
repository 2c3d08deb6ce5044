export { Config, ConfigError, loadConfig, readConfig } from './config.js';
export { keptSecret } from './kept-secret.js';
