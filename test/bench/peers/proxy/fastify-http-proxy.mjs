import proxy from '@fastify/http-proxy';
import fastify from 'fastify';

const server = fastify({ logger: false });
await server.register(proxy, { upstream: process.env.UPSTREAM, undici: { connections: 256, pipelining: 1 } });
await server.listen({ port: 0, host: '127.0.0.1' });
process.send({ port: server.server.address().port });
process.on('disconnect', () => process.exit());
