import { NewProduct } from '@banyan/contracts';
import { describe, expect, it } from 'vitest';
import { demoCatalogue } from './demo-catalogue.js';

describe('the demo catalogue', () => {
  const products = demoCatalogue();
  const distinct = (of: (product: NewProduct) => unknown) => new Set(products.map(of)).size;

  it('has at least 500 products that the contract takes, in many categories', () => {
    expect(products.length).toBeGreaterThanOrEqual(500);
    for (const product of products) expect(NewProduct.parse(product)).toEqual(product);
    expect(distinct((product) => product.category)).toBe(14);
  });

  it('names and describes each of them differently', () => {
    expect(distinct((product) => product.sku)).toBe(products.length);
    expect(distinct((product) => product.name)).toBe(products.length);
    expect(distinct((product) => product.description)).toBe(products.length);
  });

  it('is the same every time', () => expect(demoCatalogue()).toEqual(products));
});
