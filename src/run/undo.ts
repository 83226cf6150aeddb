/** What has to be done to leave nothing behind: in reverse order, all of it, whatever fails on the way. */
export class Undo {
  readonly #steps: (() => void | Promise<void>)[] = [];
  #running: Promise<unknown[]> | undefined;

  add(step: () => void | Promise<void>): void {
    this.#steps.push(step);
  }

  /** Runs the steps, once; returns what they threw. */
  run(): Promise<readonly unknown[]> {
    this.#running ??= this.#unwind();
    return this.#running;
  }

  async #unwind(): Promise<unknown[]> {
    const errors: unknown[] = [];
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step();
      } catch (error) {
        errors.push(error);
      }
    }
    return errors;
  }
}
