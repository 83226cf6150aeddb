import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import type { BigIntStats } from "node:fs";
import { KloakError } from "../../errors.ts";

/** The file is not what its headers say, or not an ELF file at all. The only error that readers of this folder throw. */
export class ElfError extends KloakError {
  constructor(code: "elf-malformed" | "elf-unsupported" | "elf-unreadable", message: string, cause?: unknown) {
    super(code, message, cause === undefined ? undefined : { cause });
    this.name = "ElfError";
  }
}

export interface Source {
  readonly name: string;
  readonly size: number;
  /**
   * Exactly `length` bytes.
   * @param room may be used for what is returned
   * @throws ElfError
   */
  read(offset: number, length: number, room?: Buffer): Buffer;
}

/** No structure that is read in one piece is longer. Longer ones (string tables, read-only data) go through `chunks`. */
const longestRead = 8 << 20;

function checkRange(source: Source, offset: number, length: number): void {
  const inside =
    Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0 && length <= longestRead;
  if (!inside || offset + length > source.size) {
    throw new ElfError(
      "elf-malformed",
      `File ${source.name} ends before offset ${offset} + ${length}: it is truncated, or its headers are wrong`,
    );
  }
}

export class MemorySource implements Source {
  readonly name: string;
  readonly size: number;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer, name = "in memory") {
    this.name = name;
    this.size = bytes.length;
    this.#bytes = bytes;
  }

  read(offset: number, length: number): Buffer {
    checkRange(this, offset, length);
    return this.#bytes.subarray(offset, offset + length);
  }
}

/** O_PATH of <fcntl.h>: nothing is opened, not even a device. */
const pathOnly = 0o10000000;
const pageBytes = 64 << 10;
const pagesKept = 32;

/** A regular file, read in pages of 64 KiB of which the last 32 are kept: symbol lookups touch few places, often. */
export class FileSource implements Source {
  readonly name: string;
  readonly size: number;
  readonly stat: BigIntStats;
  #descriptor: number;
  readonly #pages = new Map<number, Buffer>();

  /** @param path is opened without following a last symbolic link only if `follow` is false */
  constructor(path: string, options: { follow?: boolean; name?: string } = {}) {
    this.name = options.name ?? path;
    // Looked at before it is opened: to open a FIFO of a container may hold us, and a device may do anything.
    this.#descriptor = this.#open(path, pathOnly | (options.follow === false ? constants.O_NOFOLLOW : 0));
    try {
      this.stat = fstatSync(this.#descriptor, { bigint: true });
      if (!this.stat.isFile()) throw new ElfError("elf-unsupported", `${this.name} is not a regular file`);
      this.size = Number(this.stat.size);
      const looked = this.#descriptor;
      // O_NONBLOCK: nor must a lease, which a workload can take of its own file (fcntl(2)), for 45 s.
      this.#descriptor = this.#open(`/proc/self/fd/${looked}`, constants.O_RDONLY | constants.O_NONBLOCK);
      closeSync(looked);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #open(path: string, flags: number): number {
    try {
      return openSync(path, flags);
    } catch (cause) {
      throw new ElfError("elf-unreadable", `Cannot open ${this.name}: ${(cause as Error).message}`, cause);
    }
  }

  read(offset: number, length: number, room?: Buffer): Buffer {
    checkRange(this, offset, length);
    if (length > pageBytes) return this.#pread(offset, length, room);
    const first = Math.floor(offset / pageBytes);
    const last = Math.floor((offset + Math.max(length, 1) - 1) / pageBytes);
    const start = offset - first * pageBytes;
    if (first === last) return this.#slice(this.#page(first), start, length);
    const head = this.#page(first).subarray(start);
    return Buffer.concat([head, this.#slice(this.#page(last), 0, length - head.length)]);
  }

  /** Whether it has been written to, or is another, since it was opened. */
  get changed(): boolean {
    const now = fstatSync(this.#descriptor, { bigint: true });
    return now.size !== this.stat.size || now.mtimeNs !== this.stat.mtimeNs || now.ctimeNs !== this.stat.ctimeNs;
  }

  get descriptor(): number {
    return this.#descriptor;
  }

  close(): void {
    if (this.#descriptor < 0) return;
    closeSync(this.#descriptor);
    this.#descriptor = -1;
    this.#pages.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #slice(page: Buffer, start: number, length: number): Buffer {
    if (start + length > page.length) throw this.#shrunk();
    return page.subarray(start, start + length);
  }

  #page(index: number): Buffer {
    let page = this.#pages.get(index);
    if (page === undefined) {
      const offset = index * pageBytes;
      page = this.#pread(offset, Math.min(pageBytes, this.size - offset));
      const oldest = this.#pages.keys().next();
      if (this.#pages.size >= pagesKept && oldest.done !== true) this.#pages.delete(oldest.value);
    } else {
      this.#pages.delete(index);
    }
    this.#pages.set(index, page);
    return page;
  }

  #pread(offset: number, length: number, room?: Buffer): Buffer {
    const roomy = room !== undefined && room.length >= length;
    const bytes = roomy ? room.subarray(0, length) : Buffer.allocUnsafeSlow(length);
    let done = 0;
    while (done < length) {
      let count: number;
      try {
        count = readSync(this.#descriptor, bytes, done, length - done, offset + done);
      } catch (cause) {
        throw new ElfError("elf-unreadable", `Cannot read ${this.name}: ${(cause as Error).message}`, cause);
      }
      if (count === 0) throw this.#shrunk();
      done += count;
    }
    return bytes;
  }

  #shrunk(): ElfError {
    return new ElfError("elf-malformed", `File ${this.name} became shorter while it was read`);
  }
}

/**
 * A range in pieces of 1 MiB; each piece begins with the last `overlap` bytes of the one before. All lie in the same memory:
 * none outlives the next, or hundreds of megabytes would wait for the collector.
 */
export function* chunks(
  source: Source,
  offset: number,
  length: number,
  overlap: number,
): Generator<{ readonly offset: number; readonly bytes: Buffer }> {
  const step = 1 << 20;
  if (length <= 0) return;
  const room = Buffer.allocUnsafeSlow(Math.min(length, step + overlap));
  for (let at = 0; at < length; at += step) {
    const begin = Math.max(0, at - overlap);
    yield { offset: begin, bytes: source.read(offset + begin, Math.min(length, at + step) - begin, room) };
  }
}
