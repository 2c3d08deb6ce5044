import { Injectable } from '@nestjs/common';
import { identity } from '@banyan/contracts';
import { DomainError, type Role, system } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';
import { Passwords } from './identity.passwords.js';

const actor = system('seed');
const password = 'banyan-demo';
const accounts: { email: string; name: string; roles: Role[] }[] = [
  { email: 'customer@example.com', name: 'Casey Customer', roles: ['customer'] },
  { email: 'staff@example.com', name: 'Sam Staff', roles: ['customer', 'staff'] },
  { email: 'admin@example.com', name: 'Alex Admin', roles: ['customer', 'admin'] },
];

/** The accounts of the demo shop: the only way to get a staff or admin account. */
@Injectable()
export class DemoAccounts {
  constructor(
    @InjectClient(identity) private readonly client: Client<typeof identity>,
    private readonly passwords: Passwords,
  ) {}

  /** Are all of them there? */
  async seeded(): Promise<boolean> {
    for (const { email } of accounts) if (!(await this.has(email))) return false;
    return true;
  }

  /** Makes those that are missing. May be called again, and by several processes at once. */
  async seed(): Promise<void> {
    for (const account of accounts) {
      if (await this.has(account.email)) continue;
      const passwordHash = await this.passwords.hash(password);
      await this.client.register({ ...account, passwordHash }, { actor }).catch(unlessTaken);
    }
  }

  private async has(email: string): Promise<boolean> {
    return (await this.client.credentials({ email }, { actor })).account !== null;
  }
}

function unlessTaken(error: unknown): void {
  if (!DomainError.is(error) || error.code !== 'EMAIL_TAKEN') throw error;
}
