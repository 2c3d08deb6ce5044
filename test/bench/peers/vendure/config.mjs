// The least that Vendure can be: no plugins, jobs in memory. What a template adds makes it slower, not faster.
import { DefaultLogger, LogLevel, dummyPaymentHandler } from '@vendure/core';

export const ADMIN = { identifier: 'bench-admin', password: 'bench-admin-local' };

export function configOf({ databaseUrl, port }, synchronize = false) {
  const { hostname, port: databasePort, username, password, pathname, searchParams } = new URL(databaseUrl);
  return {
    apiOptions: { port, hostname: '127.0.0.1', adminApiPath: 'admin-api', shopApiPath: 'shop-api' },
    authOptions: { tokenMethod: ['bearer'], superadminCredentials: ADMIN, cookieOptions: { secret: 'bench' } },
    dbConnectionOptions: {
      type: 'postgres',
      synchronize,
      logging: false,
      // The socket file that ours uses too, when there is one.
      host: searchParams.get('host') ?? hostname,
      port: Number(databasePort),
      username,
      password: decodeURIComponent(password),
      database: pathname.slice(1),
      poolSize: 10,
    },
    paymentOptions: { paymentMethodHandlers: [dummyPaymentHandler] },
    logger: new DefaultLogger({ level: LogLevel.Error }),
    plugins: [],
  };
}
