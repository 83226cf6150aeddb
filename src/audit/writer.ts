import { Buffer } from "node:buffer";
import { closeSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { KloakError } from "../errors.ts";
import { type AuditRecord, lostRecord } from "./record.ts";

const standardError = 2;
/** Of lines that a pipe nobody reads keeps waiting. */
const mostWaitingBytes = 4 * 1024 * 1024;
const retryMilliseconds = 20;

export interface WriterOptions {
  /** Told once when records cannot be written, and again after it worked in between. */
  readonly onError?: ((error: KloakError) => void) | undefined;
  readonly now?: (() => Date) | undefined;
  /** For tests: what `fs.writeSync` does. */
  readonly write?: ((descriptor: number, bytes: Buffer) => number) | undefined;
}

/**
 * Appends records to a file, or with `-` to standard error, one JSON object a line, in the order given. A line has
 * been handed to the operating system when `write` returns, so that it survives the end of the process; only a pipe
 * that is full and does not block keeps lines waiting, until `close`. What does not fit is counted, and the trail says
 * so as soon as there is room.
 */
export class AuditWriter {
  readonly #path: string;
  readonly #descriptor: number;
  readonly #options: WriterOptions;
  readonly #write: (descriptor: number, bytes: Buffer) => number;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #lost = 0;
  #failing = false;
  #timer: NodeJS.Timeout | undefined;
  #drained: (() => void) | undefined;

  /** @throws KloakError if the file cannot be opened */
  constructor(path: string, options: WriterOptions = {}) {
    this.#path = path === "-" ? "standard error" : path;
    this.#options = options;
    this.#write = options.write ?? writeSync;
    this.#descriptor = path === "-" ? standardError : openForAppending(path);
  }

  write(record: AuditRecord): void {
    if (this.#lost > 0 && this.#waitingBytes < mostWaitingBytes) {
      const lost = this.#lost;
      this.#lost = 0;
      this.#enqueue(lostRecord((this.#options.now ?? nowDate)(), lost), lost);
    }
    this.#enqueue(record, 1);
    this.#flush();
  }

  /** Waits for a slow reader to take what is left, and closes the file. */
  async close(): Promise<void> {
    this.#flush();
    if (this.#waiting.length > 0) await new Promise<void>((resolve) => (this.#drained = resolve));
    if (this.#descriptor !== standardError) closeSync(this.#descriptor);
  }

  #enqueue(record: AuditRecord, worth: number): void {
    const line = Buffer.from(`${JSON.stringify(record)}\n`);
    if (this.#waitingBytes + line.length > mostWaitingBytes) {
      this.#lost += worth;
      return;
    }
    this.#waiting.push(line);
    this.#waitingBytes += line.length;
  }

  #flush(): void {
    if (this.#timer !== undefined) return;
    try {
      while (this.#waiting.length > 0) this.#writeFirst();
      this.#failing = false;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "EAGAIN") return this.#retryLater();
      this.#giveUp(cause);
    }
    this.#drained?.();
  }

  /** Writes what the system takes of the first line; the rest of a cut line stays first. */
  #writeFirst(): void {
    const line = this.#waiting[0] as Buffer;
    const written = this.#write(this.#descriptor, line);
    this.#waitingBytes -= written;
    if (written === line.length) this.#waiting.shift();
    else this.#waiting[0] = line.subarray(written);
  }

  #retryLater(): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#flush();
    }, retryMilliseconds);
  }

  /** A full disk or a reader that has gone: what waits is lost, the workload goes on, and somebody is told. */
  #giveUp(cause: unknown): void {
    this.#lost += this.#waiting.length;
    this.#waiting = [];
    this.#waitingBytes = 0;
    if (this.#failing) return;
    this.#failing = true;
    const why = (cause as NodeJS.ErrnoException).code ?? String(cause);
    const message = `audit ${this.#path}: records cannot be written (${why}); make room, or name another file`;
    this.#options.onError?.(new KloakError("audit-unwritable", message, { cause }));
  }
}

function openForAppending(path: string): number {
  try {
    const isCut = endsMidLine(path);
    const fd = openSync(path, "a", 0o600);
    if (isCut) writeSync(fd, "\n");
    return fd;
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code ?? "";
    const message = `audit file ${path} cannot be opened (${why}); check that its directory exists and may be written`;
    throw new KloakError("audit-unwritable", message, { cause });
  }
}

/** A writer that was killed may have left half a line: what follows must not become a part of it. */
function endsMidLine(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isFile() !== true || stat.size === 0) return false;
  const fd = openSync(path, "r");
  try {
    const last = Buffer.alloc(1);
    readSync(fd, last, 0, 1, stat.size - 1);
    return last[0] !== 0x0a;
  } finally {
    closeSync(fd);
  }
}

function nowDate(): Date {
  return new Date();
}
