import { once } from 'node:events';
import { type Server, createServer } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Ports } from './ports.js';

const local = '127.0.0.1';

describe('Ports', () => {
  let taken: Server;
  let busy: number;
  let ports: Ports;

  beforeEach(async () => {
    taken = createServer().listen(0, local);
    await once(taken, 'listening');
    busy = (taken.address() as { port: number }).port;
    ports = new Ports();
  });
  afterEach(() => void taken.close());

  it('refuse a busy one that people know, with the variable to set', async () => {
    await expect(ports.claim('PORT', local, busy)).rejects.toMatchObject({
      code: 'PORT_IN_USE',
      message: `Port ${busy} is in use: set PORT to a free one.`,
    });
  });

  it('replace a busy one that nobody has to know', async () => {
    const other = await ports.prefer(local, busy);
    expect(other).not.toBe(busy);
    expect(await ports.prefer(local, other)).not.toBe(other); // it is given away already
    ports.giveBack([other]);
    expect(await ports.prefer(local, other)).toBe(other);
  });

  it('are different ones for all that ask at once', async () => {
    const given = await Promise.all(Array.from({ length: 20 }, () => ports.prefer(local, 0)));
    expect(new Set(given).size).toBe(20);
  });

  it('know whether an owner that has ended would get its own again', async () => {
    const [mine] = [await ports.prefer(local, 0)];
    expect(await ports.stillFree(local, [mine])).toBe(true);
    expect(await ports.stillFree(local, [mine, busy])).toBe(false);
  });
});
