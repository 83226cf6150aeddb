import { Buffer } from "node:buffer";
import { type FSWatcher, watch } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { createInterface } from "node:readline";
import { KloakError } from "../errors.ts";
import type { AuditRecord } from "./record.ts";

export interface ReadOptions {
  /** Go on with what is appended, until the signal; a file that is replaced or cut is read from its start. */
  readonly follow?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

const pieceBytes = 65_536;

/**
 * The records of a trail in their order; `-` is standard input. Lines that are no records are skipped: the file may hold
 * other output too.
 */
export async function* readRecords(path: string, options: ReadOptions = {}): AsyncGenerator<AuditRecord> {
  if (path === "-") yield* standardInput(options.signal);
  else yield* fileRecords(path, options);
}

async function* fileRecords(path: string, options: ReadOptions): AsyncGenerator<AuditRecord> {
  let source = await Trail.open(path);
  const changes = options.follow === true ? new Changes(path, options.signal) : undefined;
  try {
    for (;;) {
      yield* source.newRecords();
      if (changes === undefined || !(await changes.next())) return;
      if (await source.isReplaced()) {
        yield* source.newRecords();
        await source.close();
        source = await Trail.open(path);
      }
    }
  } finally {
    changes?.close();
    await source.close();
  }
}

/** By its descriptor, which may be a socket: that cannot be opened by a path. */
async function* standardInput(signal: AbortSignal | undefined): AsyncGenerator<AuditRecord> {
  const stop = () => process.stdin.destroy();
  signal?.addEventListener("abort", stop);
  try {
    for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) yield* recordsOf(line);
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

/** One open file and how far it has been read. */
class Trail {
  readonly #path: string;
  readonly #file: FileHandle;
  #position = 0;
  #cutLine = Buffer.alloc(0);

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  static async open(path: string): Promise<Trail> {
    try {
      return new Trail(path, await open(path));
    } catch (cause) {
      const why = (cause as NodeJS.ErrnoException).code ?? "";
      const remedy = "name the file that was given to --audit";
      throw new KloakError("audit-unreadable", `audit file ${path} cannot be read (${why}); ${remedy}`, { cause });
    }
  }

  async *newRecords(): AsyncGenerator<AuditRecord> {
    const piece = Buffer.alloc(pieceBytes);
    for (;;) {
      // From where the last read ended, without naming the place: the trail may be a pipe.
      const { bytesRead } = await this.#file.read(piece, 0, piece.length, null);
      if (bytesRead === 0) return;
      this.#position += bytesRead;
      const text = Buffer.concat([this.#cutLine, piece.subarray(0, bytesRead)]);
      const end = text.lastIndexOf(0x0a) + 1;
      this.#cutLine = Buffer.from(text.subarray(end));
      yield* recordsOf(text.subarray(0, end).toString("utf8"));
    }
  }

  /** Whether the path names another file now, or this one has been cut. */
  async isReplaced(): Promise<boolean> {
    const now = await stat(this.#path).catch(() => undefined);
    if (now === undefined) return false;
    const own = await this.#file.stat();
    return now.ino !== own.ino || now.dev !== own.dev || own.size < this.#position;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** Changes in the file's directory since the last time they were asked for. */
class Changes {
  readonly #watcher: FSWatcher;
  readonly #signal: AbortSignal | undefined;
  #changed = false;
  #wake: (() => void) | undefined;

  constructor(path: string, signal: AbortSignal | undefined) {
    this.#signal = signal;
    this.#watcher = watch(dirname(path), (_, name) => {
      if (name !== null && name !== basename(path)) return;
      this.#changed = true;
      this.#wake?.();
    });
    signal?.addEventListener("abort", this.#onAbort);
  }

  /** False when there will be no more. */
  async next(): Promise<boolean> {
    if (!this.#changed && this.#signal?.aborted !== true) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    this.#changed = false;
    return this.#signal?.aborted !== true;
  }

  close(): void {
    this.#watcher.close();
    this.#signal?.removeEventListener("abort", this.#onAbort);
  }

  readonly #onAbort = () => this.#wake?.();
}

function* recordsOf(lines: string): Generator<AuditRecord> {
  for (const line of lines.split("\n")) {
    const record = parseRecord(line);
    if (record !== undefined) yield record;
  }
}

function parseRecord(line: string): AuditRecord | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    const record: Partial<AuditRecord> = JSON.parse(line);
    const isRecord = typeof record.time === "string" && typeof record.outcome === "string" && "destination" in record;
    return isRecord ? (record as AuditRecord) : undefined;
  } catch {
    return undefined;
  }
}
