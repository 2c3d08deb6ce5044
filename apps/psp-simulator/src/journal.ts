import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * An append-only file of JSON lines. What `append` has resolved is on the disk and survives `kill -9` and a power cut;
 * entries that come while a write is running share the next one, so the disk is asked once for many.
 */
export class Journal<T> {
  #lines: string[] = [];
  #next: Promise<void> | undefined;
  #last: Promise<void> = Promise.resolve();

  private constructor(private readonly file: FileHandle) {}

  /** Opens the file, or makes it, and gives `replay` every entry in order. A last line cut short by a crash goes. */
  static async open<T>(path: string, replay: (entry: T) => void): Promise<Journal<T>> {
    await mkdir(dirname(path), { recursive: true });
    const file = await open(path, 'a+');
    const bytes = await file.readFile();
    const whole = bytes.lastIndexOf('\n') + 1;
    for (const line of bytes.toString('utf8', 0, whole).split('\n')) if (line) replay(JSON.parse(line) as T);
    if (whole < bytes.length) await file.truncate(whole);
    return new Journal(file);
  }

  append(entry: T): Promise<void> {
    this.#lines.push(`${JSON.stringify(entry)}\n`);
    this.#next ??= this.#last = this.#last.then(() => this.#write());
    return this.#next;
  }

  /** Resolves when everything appended so far is on the disk: nothing is told to others before. */
  settled(): Promise<void> {
    return this.#last;
  }

  async close(): Promise<void> {
    await this.#last;
    await this.file.close();
  }

  async #write(): Promise<void> {
    const text = this.#lines.join('');
    this.#lines = [];
    this.#next = undefined;
    await this.file.appendFile(text);
    await this.file.datasync();
  }
}
