export { DemoAccounts } from './identity.demo-accounts.js';
export { IdentityModule } from './identity.module.js';
