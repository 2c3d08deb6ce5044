export { type HostOptions, createHost } from './host.js';
export { type ProcessOptions, runProcess } from './process.js';
