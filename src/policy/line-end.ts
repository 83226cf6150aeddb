import type { Buffer } from "node:buffer";

/** The bytes without one line end (LF or CRLF) at their end: files and commands give one that is not part of a key. */
export function withoutLineEnd(bytes: Buffer): Buffer {
  if (bytes.at(-1) !== 0x0a) return bytes;
  return bytes.subarray(0, bytes.at(-2) === 0x0d ? -2 : -1);
}
