import { closeSync, openSync, readSync } from "node:fs";
import { ElfError, FileSource } from "./elf/source.ts";

const smallMax = 8 << 20;

/** A file in a workload's file system: empty if there is none, or if it is no regular file of a sensible size. */
export function smallFile(path: string): Buffer {
  try {
    using source = new FileSource(path, { follow: false });
    return source.size > smallMax ? Buffer.alloc(0) : Buffer.from(source.read(0, source.size));
  } catch (error) {
    if (error instanceof ElfError) return Buffer.alloc(0);
    throw error;
  }
}

/** The first `limit` bytes of a file of /proc, which has no size: how long it is a workload decides. */
export function procText(path: string, limit: number): string {
  const file = openSync(path, "r");
  try {
    const pieces: Buffer[] = [];
    for (let left = limit; left > 0; ) {
      const piece = Buffer.allocUnsafe(Math.min(left, 64 << 10));
      const count = readSync(file, piece);
      if (count === 0) break;
      pieces.push(piece.subarray(0, count));
      left -= count;
    }
    return Buffer.concat(pieces).toString("utf8");
  } finally {
    closeSync(file);
  }
}
