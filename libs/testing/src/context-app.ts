import type { OutgoingHttpHeaders } from 'node:http';
import type { LoggerService, Provider, Type } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { AnyContract, Role } from '@banyan/kernel';
import { Bus, type Client, MessagingModule, currentScope, newScope, runInScope } from '@banyan/messaging';
import { AuthModule, TokenSigner } from '@banyan/platform/auth';
import { loadConfig } from '@banyan/platform/config';
import { DatabaseModule } from '@banyan/platform/database';
import { createHttpApp, shutDown } from '@banyan/platform/http';
import { exportJWK, generateKeyPair } from 'jose';
import type { TestDatabase } from './test-database.js';

export interface ContextAppOptions {
  /** Where it keeps its data; has the database of every contract's context. */
  test: TestDatabase;
  /** The module of the context that is looked at. */
  module: Type;
  /** Its contract, and those of its stand-ins. */
  contracts: readonly AnyContract[];
  /** The stand-ins for other contexts. */
  providers?: Provider[];
  /** Settings as the environment gives them, for `loadConfig`. */
  settings?: Record<string, string>;
  /** How tokens are checked. By default with a key made here, which `tokenOf` signs with. */
  auth?: Parameters<typeof AuthModule.with>[0];
  /** Gets the app's log lines; by default nobody does. */
  logger?: LoggerService;
}

export interface AppRequest {
  token?: string;
  /** An object is sent as JSON; a text is sent as it is, named JSON. */
  body?: object | string;
  headers?: Record<string, string>;
}

export interface AppAnswer {
  status: number;
  headers: OutgoingHttpHeaders;
  text: string;
  /** The text read as JSON; undefined when there is none. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- specs look at bodies field by field
  body: any;
}

/** One context in an app of its own. */
export interface ContextApp {
  readonly app: NestFastifyApplication;
  client<C extends AnyContract>(contract: C): Client<C>;
  /** An access token of this user. */
  tokenOf(id: string, ...roles: Role[]): Promise<string>;
  /** Asks over HTTP, without a socket. */
  request(method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', url: string, ask?: AppRequest): Promise<AppAnswer>;
  close(): Promise<void>;
}

/**
 * Starts one context as an app: its module on real Postgres, with the messaging engine, the edge and the guard. Not
 * listening; `app.listen(0, '127.0.0.1')` is for specs that need a socket. The caller closes it.
 */
export async function contextApp(options: ContextAppOptions): Promise<ContextApp> {
  const { test, module, contracts, providers, settings = {}, logger = false } = options;
  const config = loadConfig(settings);
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const named = { kid: 'k1', alg: 'ES256' };
  const keys = [{ ...(await exportJWK(publicKey)), ...named, use: 'sig' }];
  const privateJwk = { ...(await exportJWK(privateKey)), ...named };
  const signer = new TokenSigner(config.auth);

  class Root {}
  const root = {
    module: Root,
    imports: [
      DatabaseModule.forRoot({ urls: test.urls, max: 10, connectTimeoutMs: 30_000 }),
      MessagingModule.forRoot({
        contracts,
        side: 'monolith',
        jobs: { connectionString: test.adminUrl, schema: 'jobs' },
      }),
      AuthModule.with(options.auth ?? { keySource: () => async () => ({ keys }) }),
      module,
    ],
    providers,
  };
  const app = await createHttpApp(root, config, {
    logger,
    requestScope: (_, actor, next) => runInScope(newScope(actor, Date.now() + config.http.requestTimeoutMs), next),
    answerFacts: () => ({ replayed: currentScope()?.seen.replayed }),
  });
  await app.init();

  return {
    app,
    client: (contract) => app.get(Bus).client(contract),
    tokenOf: (id, ...roles) => signer.sign({ id, roles }, privateJwk),
    async request(method, url, { token, body, headers } = {}) {
      const answer = await app.inject({
        method,
        url,
        payload: body,
        headers: {
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
          ...(body !== undefined && { 'content-type': 'application/json' }),
          ...headers,
        },
      });
      const { statusCode: status, body: text } = answer;
      return { status, headers: answer.headers, text, body: text === '' ? undefined : answer.json() };
    },
    close: () => shutDown(app, 1_000),
  };
}
