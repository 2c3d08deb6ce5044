import { Module } from '@nestjs/common';
import { ProductsController } from './catalog.http.js';
import { CatalogService } from './catalog.service.js';
import { CatalogStore } from './catalog.store.js';

/** Products, prices and categories. Clients and the database are provided globally. */
@Module({ controllers: [ProductsController], providers: [CatalogService, CatalogStore] })
export class CatalogModule {}
