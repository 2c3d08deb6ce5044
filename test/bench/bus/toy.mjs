/** The one operation that every bus is asked for: no database, no work worth speaking of. */
export const schemas = (z) => ({
  Input: z.strictObject({
    id: z.string().min(1),
    sku: z.string().max(40),
    quantity: z.int().positive(),
    price: z.int().nonnegative(),
    currency: z.enum(['EUR', 'USD', 'GBP']),
  }),
  Output: z.strictObject({ id: z.string(), total: z.int(), currency: z.enum(['EUR', 'USD', 'GBP']) }),
});

export const inputOf = (i) => ({ id: 'ord_01HZX3', sku: 'SKU-1', quantity: 1 + (i & 7), price: 1999, currency: 'EUR' });
