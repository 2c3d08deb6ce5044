import type { NewProduct } from '@banyan/contracts';
import type { NdjsonLine } from '@banyan/platform/http';
import { z } from 'zod';

/** Lines in one transaction. */
const batchSize = 200;
/** Faults past this many lines are counted and not listed. */
const listedErrors = 100;

export const ImportSummary = z
  .strictObject({
    created: z.int(),
    updated: z.int(),
    unchanged: z.int(),
    failed: z.int(),
    errors: z.array(z.strictObject({ line: z.int().describe('Counted from 1'), detail: z.string() })).max(listedErrors),
  })
  .meta({ id: 'ImportSummary' });
export type ImportSummary = z.output<typeof ImportSummary>;

type Send = (items: NewProduct[]) => Promise<{ created: number; updated: number; unchanged: number }>;

/**
 * Sends the valid lines in batches and adds up what came of them. The next lines are read only when a batch is done,
 * so memory holds one batch and the sender is slowed down to the speed of the database.
 */
export async function importLines(lines: AsyncIterable<NdjsonLine<NewProduct>>, send: Send): Promise<ImportSummary> {
  const summary: ImportSummary = { created: 0, updated: 0, unchanged: 0, failed: 0, errors: [] };
  let batch: NewProduct[] = [];
  const flush = async () => {
    if (batch.length === 0) return;
    const done = await send(batch);
    summary.created += done.created;
    summary.updated += done.updated;
    summary.unchanged += done.unchanged;
    batch = [];
  };
  for await (const { line, value, faults } of lines) {
    if (faults) {
      summary.failed += 1;
      const detail = faults.map((fault) => [fault.pointer, fault.detail].filter(Boolean).join(': ')).join('; ');
      if (summary.errors.length < listedErrors) summary.errors.push({ line, detail });
    } else if (batch.push(value) === batchSize) await flush();
  }
  await flush();
  return summary;
}
