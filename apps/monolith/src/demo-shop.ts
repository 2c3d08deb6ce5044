import { Injectable } from '@nestjs/common';
import { demoCatalogue } from '@banyan/catalog';
import { catalog, inventory } from '@banyan/contracts';
import { DemoAccounts } from '@banyan/identity';
import { system } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';

const BATCH = 250;
const actor = system('seed');

/** The demo shop: products with stock, and three accounts. */
@Injectable()
export class DemoShop {
  constructor(
    @InjectClient(catalog) private readonly products: Client<typeof catalog>,
    @InjectClient(inventory) private readonly stock: Client<typeof inventory>,
    private readonly accounts: DemoAccounts,
  ) {}

  /** Puts in what is missing. The accounts come last: with them there, everything else is there too. */
  async seed(): Promise<void> {
    if (await this.accounts.seeded()) return;
    const products = demoCatalogue();
    for (let from = 0; from < products.length; from += BATCH) {
      const items = products.slice(from, from + BATCH);
      await this.products.importProducts({ items }, { actor });
      await this.stock.openStock(
        { items: items.map(({ sku }, i) => ({ sku, onHand: 20 + ((from + i) % 9) * 10 })) },
        { actor },
      );
    }
    await this.accounts.seed();
  }
}
