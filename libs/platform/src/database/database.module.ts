import { type DynamicModule, Inject, Module, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { readiness } from '../telemetry/index.js';
import { Database, type DatabaseOptions } from './database.js';

export interface DatabaseModuleOptions extends Omit<DatabaseOptions, 'context' | 'url' | 'schema'> {
  /** One URL per context, as ensureContextDatabases returns them. */
  urls: Readonly<Record<string, string>>;
}

/** The injection token of a context's Database. */
export const databaseToken = (context: string): string => `Database:${context}`;

/** Injects the Database of a context: `constructor(@InjectDatabase(inventory) private readonly db: Database)`. */
export const InjectDatabase = (contract: { name: string }): PropertyDecorator & ParameterDecorator =>
  Inject(databaseToken(contract.name));

/** One Database per context, for the whole app: ready when all answer; their pools close when the app has shut down. */
@Module({})
export class DatabaseModule implements OnModuleInit, OnApplicationShutdown {
  private checks: (() => void)[] = [];

  constructor(@Inject('Databases') private readonly databases: Map<string, Database>) {}

  static forRoot({ urls, ...options }: DatabaseModuleOptions): DynamicModule {
    const all = new Map(
      Object.entries(urls).map(([context, url]) => [context, new Database({ ...options, context, url })]),
    );
    const providers = [...all].map(([context, database]) => ({ provide: databaseToken(context), useValue: database }));
    return {
      module: DatabaseModule,
      global: true,
      providers: [{ provide: 'Databases', useValue: all }, ...providers],
      exports: ['Databases', ...providers.map(({ provide }) => provide)],
    };
  }

  onModuleInit(): void {
    this.checks = [...this.databases].map(([context, database]) =>
      readiness.check(`database:${context}`, () => database.query('select 1')),
    );
  }

  async onApplicationShutdown(): Promise<void> {
    for (const forget of this.checks) forget();
    await Promise.all([...this.databases.values()].map((database) => database.close()));
  }
}
