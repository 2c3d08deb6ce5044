import type { AddressInfo } from 'node:net';
import { Controller, Get, Module, type OnModuleDestroy } from '@nestjs/common';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../config/index.js';
import { Answers, createHttpApp, shutDown } from './index.js';

/** A handler that tells when it is reached and waits to be let go; it fails once the app's state is gone. */
async function slowApp() {
  let entered = () => {};
  let leave = () => {};
  const reached = new Promise<void>((done) => (entered = done));
  const free = new Promise<void>((done) => (leave = done));

  @Controller()
  class SlowController implements OnModuleDestroy {
    private gone = false;
    onModuleDestroy() {
      this.gone = true;
    }
    @Get()
    @Answers(200)
    async slow() {
      entered();
      await free;
      if (this.gone) throw new Error('the pool is closed');
      return {};
    }
  }
  @Module({ controllers: [SlowController] })
  class SlowModule {}

  const app = await createHttpApp(SlowModule, loadConfig({}), { logger: false });
  await app.listen(0, '127.0.0.1');
  const url = `http://127.0.0.1:${(app.getHttpServer().address() as AddressInfo).port}`;
  return { app, url, reached, leave };
}

describe('shutting down', () => {
  it('refuses new connections and finishes what is running before it closes anything else', async () => {
    const { app, url, reached, leave } = await slowApp();
    const running = fetch(url);
    await reached;
    const down = shutDown(app, 60_000);
    await expect(fetch(url)).rejects.toThrow();
    leave();
    const answer = await running;
    expect([answer.status, answer.headers.get('connection')]).toEqual([200, 'close']);
    await down;
  });
  it('cuts what does not finish in time', async () => {
    const { app, url, reached } = await slowApp();
    const running = fetch(url).catch(() => 'cut');
    await reached;
    await shutDown(app, 50);
    expect(await running).toBe('cut');
  });
});
