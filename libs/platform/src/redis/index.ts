export { RedisLink } from './redis-link.js';
