// Calls through @nestjs/cqrs, given what our bus does: input and output checked by zod, a context in AsyncLocalStorage.
import 'reflect-metadata';
import { AsyncLocalStorage } from 'node:async_hooks';
import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { CommandBus, CommandHandler, CqrsModule } from '@nestjs/cqrs';
import { z } from 'zod';

const { measureRounds } = await import(process.env.BENCH_ROUNDS);
const { inputOf, schemas } = await import(process.env.BENCH_TOY);
const { Input, Output } = schemas(z);

class Quote {
  constructor(input) {
    Object.assign(this, input);
  }
}
class QuoteHandler {
  async execute({ id, quantity, price, currency }) {
    return { id, total: quantity * price, currency };
  }
}
Injectable()(QuoteHandler);
CommandHandler(Quote)(QuoteHandler);
class App {}
Module({ imports: [CqrsModule.forRoot()], providers: [QuoteHandler] })(App);
const app = await NestFactory.createApplicationContext(App, { logger: false });
const bus = app.get(CommandBus);
const storage = new AsyncLocalStorage();

const cases = {
  'cqrs, validated, in AsyncLocalStorage': async (i) => {
    const input = Input.parse(inputOf(i));
    return Output.parse(await storage.run({ actor: 'a', trace: 'b' }, () => bus.execute(new Quote(input))));
  },
  'cqrs alone': (i) => bus.execute(new Quote(inputOf(i))),
};

const call = cases[process.argv[2]];
await measureRounds(async (n) => {
  for (let i = 0; i < n; i++) await call(i);
});
