export { httpOrigin, httpUrl, network } from './addresses.js';
export { Config, ConfigError, loadConfig, readConfig } from './config.js';
export { keptSecret } from './kept-secret.js';
