import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Controller, Module, Post } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { AuthModule, Public } from '../auth/index.js';
import { loadConfig } from '../config/index.js';
import { Answers, NdjsonBody, type NdjsonLine, createHttpApp } from './index.js';

const Thing = z.strictObject({ name: z.string() });

type Lines = AsyncIterable<NdjsonLine<z.output<typeof Thing>>>;

@Controller()
class UploadsController {
  @Post('upload')
  @Public()
  @Answers(200)
  async upload(@NdjsonBody(Thing, { maxLineBytes: 1_000 }) lines: Lines) {
    let good = 0;
    const bad: unknown[] = [];
    for await (const line of lines) {
      if (line.faults) bad.push([line.line, line.faults[0]?.pointer]);
      else good += 1;
    }
    return { good, bad };
  }

  @Post('hasty')
  @Public()
  @Answers(200)
  async hasty(@NdjsonBody(Thing, { idleMs: 50 }) lines: Lines) {
    for await (const _ of lines);
  }

  @Post('guarded')
  @Answers(200)
  guarded() {
    return {};
  }
}

@Module({
  imports: [AuthModule.with({ keySource: () => async () => ({ keys: [] }) })],
  controllers: [UploadsController],
})
class UploadsModule {}

let app: NestFastifyApplication;
let base: string;
beforeAll(async () => {
  app = await createHttpApp(UploadsModule, loadConfig({}), { logger: false });
  await app.listen(0, '127.0.0.1');
  base = `http://127.0.0.1:${(app.getHttpServer().address() as AddressInfo).port}`;
});
afterAll(() => app.close());

const headers = { 'content-type': 'application/x-ndjson' };
const upload = (body: string, type = 'application/x-ndjson') =>
  fetch(`${base}/upload`, { method: 'POST', headers: { 'content-type': type }, body });

/** Sends the start of a body that never ends, and answers what came back. */
const stall = (path: string, start: string) =>
  new Promise<{ status?: number; connection?: string }>((done, failed) => {
    const sent = request(base + path, { method: 'POST', headers }, (response) => {
      done({ status: response.statusCode, connection: response.headers.connection });
      response.resume();
    });
    sent.on('error', failed);
    sent.write(start);
  });

describe('an NDJSON upload', () => {
  it('may be larger than the body limit, and names bad lines', async () => {
    const lines = Array.from({ length: 30_000 }, (_, n) => `{"name":"${'x'.repeat(50)}ä${n}"}`);
    lines[6] = '{"name":1}';
    lines[8] = '{';
    lines[9] = `{"name":${'['.repeat(100)}`;
    const response = await upload(lines.join('\n') + '\r\n\n');
    expect(await response.json()).toEqual({
      good: 29_997,
      bad: [
        [7, '/name'],
        [9, ''],
        [10, ''],
      ],
    });
  });
  it('need not end its last line', async () => {
    expect(await (await upload('{"name":"a"}\n{"name":"b"}')).json()).toEqual({ good: 2, bad: [] });
  });
  it('a line over its limit: 413, whether it ends or not', async () => {
    const long = `{"name":"${'x'.repeat(1_000)}"}`;
    expect((await upload(`${long}\n`)).status).toBe(413);
    expect((await upload(long)).status).toBe(413);
  });
  it('a line that never ends is refused before memory fills with it', async () => {
    expect(await stall('/upload', 'x'.repeat(2_000))).toEqual({ status: 413, connection: 'close' });
  });
  it('of another type: 415', async () => {
    expect((await upload('{}', 'application/json')).status).toBe(415);
  });
  it('that stalls: 408', async () => {
    expect(await stall('/hasty', '{"name":"a"}\n{"na')).toEqual({ status: 408, connection: 'close' });
  });
  it('that is refused is not read to its end', async () => {
    expect(await stall('/guarded', '{"name":"a"}\n')).toEqual({ status: 401, connection: 'close' });
  });
});
