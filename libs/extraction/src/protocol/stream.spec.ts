import { expect, it } from 'vitest';
import { streamName, streamPattern } from './stream.js';

const name = streamName('inventory', 'monolith', 'postgres://postgres:secret@127.0.0.1:5432/shop');

it('is the same however its database is reached', () => {
  for (const url of [
    'postgres://banyan_inventory@db.internal/shop',
    'postgresql://postgres:other@127.0.0.1:5432/shop?host=%2Ftmp%2Fsocket',
    'postgres://127.0.0.1/%73hop',
  ])
    expect(streamName('inventory', 'monolith', url)).toBe(name);
});

it('differs for two installations on one server, for the contexts and for the sides', () => {
  const all = [
    name,
    streamName('inventory', 'monolith', 'postgres://127.0.0.1/shop-two'),
    streamName('inventory', 'service', 'postgres://127.0.0.1/shop'),
    streamName('orders', 'monolith', 'postgres://127.0.0.1/shop'),
  ];
  expect(new Set(all).size).toBe(all.length);
});

it('is the one of the role where the URL names no database', () => {
  expect(streamName('inventory', 'monolith', 'postgres://shop@127.0.0.1')).toBe(name);
});

it('is a name that a slot can have, and that its pattern knows', () => {
  const long = streamName('gift-cards-and-more', 'service', 'postgres://h/Ünïcode%20and%20"quotes"');
  expect(long).toMatch(/^[a-z0-9_]{1,50}$/);
  expect(long).toMatch(new RegExp(streamPattern('gift-cards-and-more', 'service')));
  expect(long).not.toMatch(new RegExp(streamPattern('gift-cards-and-more', 'monolith')));
  expect(name).not.toMatch(new RegExp(streamPattern('inventory', 'service')));
});
