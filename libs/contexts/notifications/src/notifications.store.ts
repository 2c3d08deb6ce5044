import { Injectable } from '@nestjs/common';
import { notifications } from '@banyan/contracts';
import { Database, InjectDatabase } from '@banyan/platform/database';
import { PrismaClient } from './generated/client.js';

export interface StoredMessage {
  id: string;
  eventId: string;
  kind: string;
  userId: string;
  orderId: string | null;
  subject: string;
  body: string;
  sentAt: Date;
}

@Injectable()
export class NotificationsStore {
  private readonly prisma: PrismaClient;

  constructor(@InjectDatabase(notifications) db: Database) {
    this.prisma = new PrismaClient({ adapter: db.prismaAdapter() });
  }

  async addRecipient(recipient: { userId: string; email: string; name: string }): Promise<void> {
    await this.prisma.recipient.createMany({ data: [recipient], skipDuplicates: true });
  }

  async recipient(userId: string): Promise<{ email: string; name: string } | undefined> {
    return (await this.prisma.recipient.findFirst({ where: { userId } })) ?? undefined;
  }

  /** False when this event has had its message of this kind. */
  async addMessage(message: StoredMessage): Promise<boolean> {
    const { count } = await this.prisma.message.createMany({ data: [message], skipDuplicates: true });
    return count === 1;
  }

  /** The latest messages to a user, newest first. */
  messagesTo(userId: string, limit: number): Promise<StoredMessage[]> {
    return this.prisma.message.findMany({ where: { userId }, orderBy: { id: 'desc' }, take: limit });
  }
}
