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
      BANYAN_TRUSTED_PROXIES: '10.0.0.1, fd00::/8',
    });
    expect(config.http).toMatchObject({ port: 0, rateLimits: false, trustedProxies: ['10.0.0.1', 'fd00::/8'] });
    expect(config.database).toMatchObject({
      url: 'postgres://u:p@db/shop',
      contextUrls: { inventory: 'postgresql://u:p@other/inventory' },
    });
    expect(config.payments.pspUrl).toBe('http://psp.test');
    expect(config.seed).toBe(false);
  });

  it('takes lists where there may be several of one kind', () => {
    const { extraction, instances } = loadConfig({
      CONTROL_URL: 'http://a:8090/, http://b:8090',
      MONOLITH_URLS: 'http://a:3000,http://b:3000',
      MONOLITH_RPC_ADDRESSES: 'a:3001, [::1]:3001',
      BANYAN_MONOLITHS: '3',
    });
    expect(extraction.controlUrls).toEqual(['http://a:8090', 'http://b:8090']);
    expect(extraction.monolith).toEqual({
      http: ['http://a:3000', 'http://b:3000'],
      rpc: [
        { host: 'a', port: 3001 },
        { host: '::1', port: 3001 },
      ],
    });
    expect(instances).toEqual({ monoliths: 3, proxies: 1, controlPlanes: 1, services: 1 });
    expect(loadConfig({ MONOLITH_PORT: '3005' }).extraction.monolith.http).toEqual(['http://127.0.0.1:3005']);
    expect(() => loadConfig({ CONTROL_URL: 'a:8090', MONOLITH_RPC_ADDRESSES: 'a' })).toThrow(/2 problems/);
  });

  it('goes over to NATS when there is one, unless it is told otherwise', () => {
    const local = loadConfig({ NATS_USER: 'monolith' });
    expect([local.nats, local.transports]).toEqual([undefined, { rpc: 'tcp', events: 'direct', bridge: 'slot' }]);
    const NATS_URL = 'nats://one:4222, tls://two:4222';
    const secret = { NATS_SECRET: 'a secret that is long enough to be one' };
    const fleet = loadConfig({
      NATS_URL,
      NATS_USER: 'monolith',
      NATS_TLS_CA: '/ca.pem',
      BANYAN_EVENTS: 'direct',
      ...secret,
    });
    expect(fleet.nats).toMatchObject({
      servers: ['nats://one:4222', 'tls://two:4222'],
      user: 'monolith',
      tls: { ca: '/ca.pem' },
    });
    expect(fleet.transports).toEqual({ rpc: 'nats', events: 'direct', bridge: 'slot' });
    expect(fleet.natsSecret).toBe(secret.NATS_SECRET);
    expect(() => loadConfig({ BANYAN_BRIDGE_LOG: 'jetstream' })).toThrow('BANYAN_BRIDGE_LOG: jetstream needs NATS_URL');
    expect(() => loadConfig({ NATS_SECRET: 'short' })).toThrow('NATS_SECRET: at least 32 characters');
  });

  it.each(['10.0.0.0/', '10.0.0.0/0', '10.0.0.0/33', '::/129', '10.0.0.0/8/8', '/8', '10.0.0', 'foo', 'localhost'])(
    'nobody is trusted by mistake: %s is no network',
    (network) => {
      expect(() => loadConfig({ BANYAN_TRUSTED_PROXIES: `10.0.0.1,${network}` })).toThrow(
        'BANYAN_TRUSTED_PROXIES: addresses or networks',
      );
    },
  );

  it('upstreams are spoken to in plain HTTP, and keep the paths of requests', () => {
    for (const url of ['https://a', 'http://a/base', 'a:3000'])
      expect(() => loadConfig({ MONOLITH_URLS: url })).toThrow('MONOLITH_URLS: addresses such as http://');
  });

  it('a certificate needs its key, and the other way round', () => {
    const [NATS_TLS_CERT, NATS_TLS_KEY] = ['/cert.pem', '/key.pem'];
    const NATS_URL = 'tls://one:4222';
    for (const half of [{ NATS_TLS_CERT }, { NATS_TLS_KEY, NATS_TLS_CERT: ' ' }])
      expect(() => loadConfig({ NATS_URL, ...half })).toThrow('NATS_TLS_CERT, NATS_TLS_KEY: neither goes');
    const { nats } = loadConfig({ NATS_URL, NATS_TLS_CERT, NATS_TLS_KEY });
    expect(nats?.tls).toMatchObject({ cert: NATS_TLS_CERT, key: NATS_TLS_KEY });
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
