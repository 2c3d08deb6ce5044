import { Injectable, Logger } from '@nestjs/common';
import { identity } from '@banyan/contracts';
import { type Client, InjectClient, Job, type JobContext } from '@banyan/messaging';
import { SigningKeys } from './identity.signing-keys.js';

const hour = 60 * 60_000;
const batch = 500;

@Injectable()
export class IdentityJobs {
  private readonly log = new Logger('IdentityJobs');

  constructor(
    @InjectClient(identity) private readonly client: Client<typeof identity>,
    private readonly keys: SigningKeys,
  ) {}

  @Job({ name: 'identity.rotate-signing-key', everyMs: hour })
  async rotateSigningKey({ now }: JobContext): Promise<void> {
    await this.keys.rotateIfDue(now);
  }

  @Job({ name: 'identity.remove-expired', everyMs: hour })
  async removeExpired(_: JobContext): Promise<void> {
    let removed = 0;
    for (;;) {
      const { sessions } = await this.client.removeExpired({ limit: batch });
      removed += sessions;
      if (sessions < batch) break;
    }
    if (removed > 0) this.log.log({ msg: 'expired sessions removed', sessions: removed });
  }
}
