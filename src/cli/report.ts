/* How kloak itself speaks: on standard error, and never through a stream, which would change the command's descriptor. */
import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { KloakError } from "../errors.ts";
import type { Reporter } from "../run/run.ts";

export interface Manner {
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
  readonly verbose?: boolean | undefined;
}

type Level = "error" | "warning" | "info" | "detail";

const standardError = 2;

/** Writes all of `text` to a descriptor, whoever has made it non-blocking. */
export function write(fd: number, text: string): void {
  let rest = Buffer.from(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "EAGAIN") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
      else return; // nobody is listening
    }
  }
}

export class Report implements Reporter {
  readonly #manner: Manner;
  #held: string[] | undefined;

  constructor(manner: Manner) {
    this.#manner = manner;
  }

  error(error: unknown): void {
    if (error instanceof KloakError) this.#say("error", error.message, error.code);
    else
      this.#say(
        "error",
        `Unexpected: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
        "unexpected",
      );
  }

  warn(message: string): void {
    if (this.#manner.quiet !== true) this.#say("warning", message);
  }

  note(message: string): void {
    if (this.#manner.quiet !== true) this.#say("info", message);
  }

  detail(message: string): void {
    if (this.#manner.verbose === true) this.#say("detail", message);
  }

  /** While a command has the terminal, what there is to say waits until it gives it back. */
  hold(): void {
    if (isatty(standardError) && this.#manner.verbose !== true) this.#held = [];
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const line of held) write(standardError, line);
  }

  #say(level: Level, message: string, code?: string): void {
    const prefix = level === "warning" ? "kloak: warning: " : "kloak: ";
    const time = new Date().toISOString();
    const line = this.#manner.json === true ? JSON.stringify({ time, level, code, message }) : prefix + message;
    if (this.#held === undefined) write(standardError, `${line}\n`);
    else if (this.#held.length < 1000) this.#held.push(`${line}\n`);
  }
}
