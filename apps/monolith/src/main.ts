import 'reflect-metadata';
import { runProcess } from '@banyan/extraction/host';
import { DemoShop } from './demo-shop.js';
import { monolith } from './monolith.js';

await runProcess({
  ...monolith,
  name: 'monolith',
  beforeListening: async (app, { seed }) => {
    if (seed) await app.get(DemoShop).open();
  },
});
