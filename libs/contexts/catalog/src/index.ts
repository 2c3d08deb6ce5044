export { CatalogModule } from './catalog.module.js';
export { demoCatalogue } from './demo-catalogue.js';
