export { Cache, type Forgotten, type Kept, noCache } from './cache.js';
export { RedisCache } from './redis-cache.js';
