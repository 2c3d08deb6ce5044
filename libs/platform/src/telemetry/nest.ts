import { type DynamicModule, Injectable, Module } from '@nestjs/common';
import { Logger as NestPinoLogger, LoggerModule } from 'nestjs-pino';
import { rootLogger } from './log.js';

/* A door of its own: the proxy, the bridge and the commands log without Nest, which costs 0.3 s of CPU to load. */

/**
 * Nest's logger on pino. Takes both styles that Nest 12 code is written in: `log({ msg, orderId, err })`, and a text
 * followed by objects or an Error, which become fields of the same line.
 */
@Injectable()
export class NestLogger extends NestPinoLogger {
  override verbose(message: unknown, ...params: unknown[]): void {
    super.verbose(...asOneLine(message, params));
  }

  override debug(message: unknown, ...params: unknown[]): void {
    super.debug(...asOneLine(message, params));
  }

  override log(message: unknown, ...params: unknown[]): void {
    super.log(...asOneLine(message, params));
  }

  override warn(message: unknown, ...params: unknown[]): void {
    super.warn(...asOneLine(message, params));
  }

  override error(message: unknown, ...params: unknown[]): void {
    super.error(...asOneLine(message, params));
  }

  override fatal(message: unknown, ...params: unknown[]): void {
    super.fatal(...asOneLine(message, params));
  }
}

/** Only a text followed by objects needs help: nestjs-pino would take them for printf arguments and drop them. */
function asOneLine(message: unknown, params: unknown[]): [unknown, ...unknown[]] {
  if (typeof message !== 'string') return [message, ...params];
  const fields = params.filter((param) => typeof param === 'object' && param !== null);
  if (fields.length === 0) return [message, ...params];
  const merged: Record<string, unknown> = { msg: message };
  for (const field of fields) Object.assign(merged, field instanceof Error ? { err: field } : field);
  return [merged, ...params.filter((param) => typeof param !== 'object').slice(-1)];
}

/** nestjs-pino bound to the process's logger. Its middleware is left out: `observeHttp` logs requests, with the route. */
export function loggerModule(): DynamicModule {
  return {
    module: TelemetryLoggerModule,
    global: true,
    imports: [LoggerModule.forRoot({ pinoHttp: { logger: rootLogger(), autoLogging: false }, forRoutes: [] })],
    providers: [NestLogger],
    exports: [NestLogger],
  };
}

@Module({})
class TelemetryLoggerModule {}
