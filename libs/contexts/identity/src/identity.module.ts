import { Module } from '@nestjs/common';
import { TokenSigner } from '@banyan/platform/auth';
import { Config } from '@banyan/platform/config';
import { Authentication } from './identity.authentication.js';
import { DemoAccounts } from './identity.demo-accounts.js';
import { AuthController, IdentityController } from './identity.http.js';
import { IdentityJobs } from './identity.jobs.js';
import { Passwords } from './identity.passwords.js';
import { IdentityService } from './identity.service.js';
import { SigningKeys } from './identity.signing-keys.js';
import { IdentityStore } from './identity.store.js';

@Module({
  controllers: [AuthController, IdentityController],
  providers: [
    IdentityService,
    IdentityStore,
    Authentication,
    Passwords,
    SigningKeys,
    IdentityJobs,
    DemoAccounts,
    { provide: TokenSigner, inject: [Config], useFactory: (config: Config) => new TokenSigner(config.auth) },
  ],
  exports: [DemoAccounts],
})
export class IdentityModule {}
