import { setTimeout as pause } from 'node:timers/promises';
import { Injectable, Logger } from '@nestjs/common';
import { demoCatalogue } from '@banyan/catalog';
import { catalog, inventory } from '@banyan/contracts';
import { DemoAccounts } from '@banyan/identity';
import { DomainError, system } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';

const BATCH = 250;
const actor = system('seed');

/** Between two tries while a context that has left is not up yet, ms. */
const RETRY = 1_000;

/** The demo shop: products with stock, and three accounts. */
@Injectable()
export class DemoShop {
  private readonly log = new Logger('DemoShop');

  constructor(
    @InjectClient(catalog) private readonly products: Client<typeof catalog>,
    @InjectClient(inventory) private readonly stock: Client<typeof inventory>,
    private readonly accounts: DemoAccounts,
  ) {}

  /**
   * Puts in what is missing, and comes back when it is there. Where a context runs in a process of its own that is not up
   * yet, the shop opens without waiting for it.
   */
  async open(): Promise<void> {
    if (await this.tried()) return;
    void (async () => {
      do await pause(RETRY, undefined, { ref: false });
      while (!(await this.tried()));
    })().catch((error: unknown) => this.log.error({ msg: 'the demo shop could not be filled', err: error }));
  }

  private async tried(): Promise<boolean> {
    try {
      await this.seed();
      return true;
    } catch (error) {
      if (!DomainError.is(error) || error.kind !== 'unavailable') throw error;
      this.log.warn({ msg: 'the demo shop is filled later', reason: error.message });
      return false;
    }
  }

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
