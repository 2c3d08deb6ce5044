import { type Stage, stages } from '@banyan/extraction/stage';
import type { ContextStatus } from '@banyan/extraction/status';
import { Listr, ListrLogger, type ListrTaskWrapper } from 'listr2';
import { lagText, remark } from './context-text.js';
import type { ControlClient } from './control-client.js';
import { CommandError } from './exit.js';
import { type Goal, follow } from './follow.js';
import type { Screen } from './screen.js';

/** What each stage means, on the way out and on the way back. */
const out: Record<Stage, string> = {
  monolith: 'everything is in the monolith',
  replicate: 'the service starts, its rows are copied and kept up to date',
  shadow: 'reads go to both sides and are compared',
  canary: 'a share of the readers is served by the service',
  live: 'the service owns the data',
};
const back: Record<Stage, string> = {
  live: 'the service owns the data',
  canary: 'the monolith owns the data again',
  shadow: 'the monolith serves every read',
  replicate: 'nothing is compared any more',
  monolith: 'the service and its bridge are stopped',
};

/** In a terminal a line may change as often as it likes; in a file each change is one more line. */
const FILE_INTERVAL_MS = 2_000;

/** The stages between `from` and `to`, in the order they are reached. */
export function stagesBetween(from: Stage, to: Stage): Stage[] {
  const [a, b] = [stages.indexOf(from), stages.indexOf(to)];
  if (a === b) return [to];
  return a < b ? stages.slice(a + 1, b + 1) : stages.slice(b, a).toReversed();
}

/** Follows a context to its goal with a line per stage; Ctrl-C ends the watching and not the journey. */
export async function watchJourney(of: {
  client: ControlClient;
  screen: Screen;
  from: ContextStatus;
  goal: Goal;
  timeoutMs: number;
}): Promise<ContextStatus> {
  const { client, screen, from, goal, timeoutMs } = of;
  const interrupt = new AbortController();
  const onSignal = () => interrupt.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  const view = screen.json ? undefined : new StageList(from, goal);
  try {
    const there = await follow(client, from.context, goal, {
      timeoutMs,
      signal: interrupt.signal,
      onStatus: (status) => {
        view?.show(status);
        if (screen.json) screen.tell({ event: 'progress', ...status });
      },
      onAway: () => view?.say('the control plane is away; this goes on when it is back'),
    });
    await view?.end();
    return there;
  } catch (error) {
    const left = new CommandError(
      'INTERRUPTED',
      `${from.context} goes on to ${goal.stage} without you:`,
      `banyan status ${from.context} --watch looks at it, banyan rollback ${from.context} takes it back.`,
    );
    const told = interrupt.signal.aborted ? left : (error as Error);
    await view?.end(told);
    throw told;
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

/** A task per stage on the way; the current one says what it is doing and what it waits for. */
class StageList {
  private readonly steps: { stage: Stage; reached: PromiseWithResolvers<void> }[];
  private readonly running: Promise<unknown>;
  private task: ListrTaskWrapper<unknown, never, never> | undefined;
  private said = { text: '', at: 0 };

  constructor(from: ContextStatus, goal: Goal) {
    const order = stagesBetween(from.stage, goal.stage);
    const words = stages.indexOf(goal.stage) < stages.indexOf(from.stage) ? back : out;
    this.steps = order.map((stage) => ({ stage, reached: Promise.withResolvers<void>() }));
    for (const { reached } of this.steps) reached.promise.catch(() => {}); // one that is not shown yet
    const list = new Listr<unknown, 'default', 'simple'>(
      this.steps.map(({ stage, reached }) => ({
        title: `${stage.padEnd(9)} ${words[stage]}`,
        task: (_, task) => {
          this.task = task as never;
          return reached.promise;
        },
        rendererOptions: { outputBar: true },
      })),
      {
        registerSignalListeners: false,
        rendererOptions: { showErrorMessage: false, formatOutput: 'wrap' },
        // What went wrong is said once, on stderr, by the command.
        fallbackRendererOptions: { logger: new ListrLogger({ useIcons: true, toStderr: [] }) },
      },
    );
    this.running = list.run().catch(() => {}); // what was wrong is told once, at the end
  }

  show(status: ContextStatus): void {
    const at = this.steps.findIndex(({ stage }) => stage === status.stage);
    // The last one is reached when the journey is over, which is more than being in the stage.
    for (const { reached } of this.steps.slice(0, Math.min(at + 1, this.steps.length - 1))) reached.resolve();
    this.say(oneLine(status));
  }

  say(text: string): void {
    if (text === '' || text === this.said.text || !this.task) return;
    const now = Date.now();
    if (!process.stdout.isTTY && now - this.said.at < FILE_INTERVAL_MS) return;
    this.said = { text, at: now };
    this.task.output = text;
  }

  async end(error?: Error): Promise<void> {
    const word = error instanceof CommandError ? error.code.toLowerCase() : 'failed';
    for (const { reached } of this.steps)
      if (error) reached.reject(new Error(word));
      else reached.resolve();
    await this.running;
  }
}

function oneLine(status: ContextStatus): string {
  const lag = lagText(status);
  return [remark(status), lag && `lag ${lag}`].filter(Boolean).join(' · ');
}
