import { Controller, Module, Post } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { z } from 'zod';
import { loadConfig } from '../config/index.js';
import { Answers, createHttpApp } from '../http/index.js';
import { SIGNATURE_HEADER, SignedBody, signWebhook } from './index.js';

const secret = 'a secret for webhooks in specs';
const News = z.object({ id: z.string().min(1), count: z.int().default(1) });

@Controller()
class HooksController {
  @Post('psp')
  @Answers(200)
  psp(@SignedBody(News, ({ payments }) => payments.pspWebhookSecret) news: z.output<typeof News>) {
    return news;
  }

  @Post('carrier')
  @Answers(200)
  carrier(@SignedBody(News, ({ shipping }) => shipping.carrierWebhookSecret) news: z.output<typeof News>) {
    return news;
  }
}

@Module({ controllers: [HooksController] })
class HooksModule {}

let app: NestFastifyApplication;
beforeAll(async () => {
  app = await createHttpApp(HooksModule, loadConfig({ PSP_WEBHOOK_SECRET: secret }), { logger: false });
  await app.init();
});
afterAll(() => app.close());

async function tell(url: string, payload: string, signature?: string, type = 'application/json') {
  const headers = { 'content-type': type, ...(signature !== undefined && { [SIGNATURE_HEADER]: signature }) };
  const answer = await app.inject({ method: 'POST', url, payload, headers });
  return { status: answer.statusCode, body: answer.json() };
}
const signed = (body: string, type?: string) => tell('/psp', body, signWebhook(secret, body), type);

it('hands over what is signed and valid, with its defaults', async () => {
  expect(await signed('{ "id": "a" }')).toEqual({ status: 200, body: { id: 'a', count: 1 } });
});

it.each([
  ['missing', () => undefined],
  ['of another secret', (body: string) => signWebhook('another secret of some length', body)],
  ['of other bytes', (body: string) => signWebhook(secret, `${body} `)],
])('refuses a signature that is %s', async (_, sign) => {
  const body = '{"id":"a"}';
  expect(await tell('/psp', body, sign(body))).toMatchObject({ status: 401, body: { code: 'SIGNATURE_INVALID' } });
});

it('believes nobody while no secret is set', async () => {
  const body = '{"id":"a"}';
  const answer = await tell('/carrier', body, signWebhook('', body));
  expect(answer).toMatchObject({ status: 401, body: { code: 'SIGNATURE_INVALID' } });
});

it('refuses what is signed and invalid, naming the fault', async () => {
  expect(await signed('{"id":""}')).toMatchObject({
    status: 400,
    body: { code: 'INPUT_INVALID', errors: [{ pointer: '/id' }] },
  });
  expect(await signed('')).toMatchObject({ status: 400, body: { code: 'INPUT_INVALID' } });
});

it('is documented: the header, and the schema of the body', async () => {
  const { paths } = (await app.inject('/openapi.json')).json();
  expect(paths['/psp'].post).toMatchObject({
    parameters: [{ name: SIGNATURE_HEADER, in: 'header', required: true }],
    requestBody: { content: { 'application/json': { schema: { required: ['id'] } } } },
    responses: { 401: {} },
  });
});
