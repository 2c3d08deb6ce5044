import 'reflect-metadata';
import { runProcess } from '@banyan/extraction/host';
import { service } from './app.module.js';

await runProcess({ ...service, name: 'notifications-service' });
