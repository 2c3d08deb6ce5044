// Nest on Fastify with a guard, an interceptor and a pipe, and nothing else: what a host costs that does no work.
import 'reflect-metadata';
import { Controller, Get, Injectable, Module, Param } from '@nestjs/common';
import { APP_GUARD, APP_INTERCEPTOR, NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';

class Hello {
  async hello(id) {
    return { hello: id };
  }
}
class Pipe {
  transform(value) {
    return value;
  }
}
class Guard {
  canActivate() {
    return true;
  }
}
class Interceptor {
  intercept(_context, next) {
    return next.handle();
  }
}
class App {}
Get('hello/:id')(Hello.prototype, 'hello', Object.getOwnPropertyDescriptor(Hello.prototype, 'hello'));
Param('id', new Pipe())(Hello.prototype, 'hello', 0);
Controller()(Hello);
Injectable()(Guard);
Injectable()(Interceptor);
const providers = [
  { provide: APP_GUARD, useClass: Guard },
  { provide: APP_INTERCEPTOR, useClass: Interceptor },
];
Module({ controllers: [Hello], providers })(App);

const app = await NestFactory.create(App, new FastifyAdapter(), { logger: false });
await app.listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
process.on('disconnect', () => process.exit(0));
process.send('ready');
