export { CurrentActor, PUBLIC, Public, ROLES, Roles } from './access.js';
export { AccessGuard } from './access.guard.js';
export { AccessTokens, type KeySource, TokenSigner } from './access-tokens.js';
export { AuthModule } from './auth.module.js';
export { rpcToken, sameToken } from './rpc-token.js';
export { SignedBody } from './signed-body.js';
export { SIGNATURE_HEADER, signWebhook, verifyWebhook } from './webhook-signature.js';
export { KEY_SET, keptKeys } from './kept-keys.js';
