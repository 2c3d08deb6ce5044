import { Module } from '@nestjs/common';
import { NotificationsEvents } from './notifications.events.js';
import { NotificationsService } from './notifications.service.js';
import { NotificationsStore } from './notifications.store.js';

@Module({ providers: [NotificationsService, NotificationsStore, NotificationsEvents] })
export class NotificationsModule {}
