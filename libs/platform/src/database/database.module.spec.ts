import { testDatabase } from '@banyan/testing';
import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { expect, it } from 'vitest';
import { Database } from './database.js';
import { DatabaseModule, InjectDatabase } from './database.module.js';

const test = testDatabase({ contexts: ['catalog', 'inventory'] });

@Injectable()
class Store {
  constructor(@InjectDatabase({ name: 'inventory' }) readonly db: Database) {}
}

it('gives each context its own Database and closes them with the app', async () => {
  @Module({ imports: [DatabaseModule.forRoot({ urls: test.urls, max: 2 })], providers: [Store] })
  class App {}
  const app = await NestFactory.createApplicationContext(App, { logger: false });
  const { db } = app.get(Store);
  expect((await db.query('select current_schema() as schema')).rows).toEqual([{ schema: 'inventory' }]);
  await app.close();
  await expect(db.query('select 1')).rejects.toThrow('The database is not available');
});
