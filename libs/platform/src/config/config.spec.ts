import { isAbsolute } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError, loadConfig } from './index.js';

describe('loadConfig', () => {
  it('needs nothing: the defaults run the embedded mode', () => {
    const config = loadConfig({});
    expect(config.http).toMatchObject({ port: 8080, internalPort: 9464, rateLimits: true, servedBy: 'monolith' });
    expect(config.database).toMatchObject({ url: undefined, contextUrls: {} });
    expect(config.seed).toBe(true);
    expect(isAbsolute(config.stateDir)).toBe(true);
  });

  it('reads what is set, and one database URL per context', () => {
    const config = loadConfig({
      PORT: '0',
      DATABASE_URL: 'postgres://u:p@db/shop',
      INVENTORY_DATABASE_URL: 'postgresql://u:p@other/inventory',
      BANYAN_RATE_LIMITS: 'off',
      PSP_URL: 'http://psp.test/',
      BANYAN_TRUSTED_PROXIES: '10.0.0.1, 10.0.0.2',
    });
    expect(config.http).toMatchObject({ port: 0, rateLimits: false, trustedProxies: ['10.0.0.1', '10.0.0.2'] });
    expect(config.database).toMatchObject({
      url: 'postgres://u:p@db/shop',
      contextUrls: { inventory: 'postgresql://u:p@other/inventory' },
    });
    expect(config.payments.pspUrl).toBe('http://psp.test');
    expect(config.seed).toBe(false);
  });

  it('an empty variable is unset', () => {
    expect(loadConfig({ PORT: '', DATABASE_URL: ' ' })).toMatchObject({ http: { port: 8080 }, seed: true });
  });

  it('lists every problem at once, and repeats no value', () => {
    const env = {
      PORT: '70000',
      LOG_LEVEL: 'loud',
      DATABASE_URL: 'mysql://root:hunter2@db',
      ORDERS_DATABASE_URL: 'hunter2',
      PSP_WEBHOOK_SECRET: 'hunter2',
      BANYAN_ACCESS_TOKEN_SECONDS: '3600',
    };
    const problems = (() => {
      try {
        loadConfig(env);
      } catch (error) {
        return error as ConfigError;
      }
    })();
    expect(problems).toBeInstanceOf(ConfigError);
    expect(problems?.problems.map((each) => each.split(':')[0]).sort()).toEqual(Object.keys(env).sort());
    expect(problems?.message.split('\n')).toHaveLength(7);
    expect(problems?.message).not.toContain('hunter2');
  });
});
