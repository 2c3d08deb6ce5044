/** Lets a loop sleep until its time has come or somebody wakes it. A wake while it works shortens the next sleep. */
export class Waker {
  private woken = false;
  private wakeUp: (() => void) | undefined;

  wake(): void {
    this.woken = true;
    this.wakeUp?.();
  }

  async sleep(ms: number): Promise<void> {
    if (!this.woken)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        this.wakeUp = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    this.woken = false;
    this.wakeUp = undefined;
  }
}
