import { Buffer } from "node:buffer";
import { timingSafeEqual } from "node:crypto";
import { inspect } from "node:util";

const redacted = "[redacted]";

/**
 * A real secret. Whatever prints it (a template literal, JSON, a log, the inspector) prints `[redacted]`; the bytes come
 * out through `reveal()` alone, so that every place that reads them can be found by searching for that name.
 */
export class SecretValue {
  readonly #bytes: Buffer;

  /** Takes bytes over without copying them; a string is encoded as UTF-8. */
  constructor(value: Buffer | string) {
    this.#bytes = typeof value === "string" ? Buffer.from(value, "utf8") : value;
  }

  /** In bytes. */
  get length(): number {
    return this.#bytes.length;
  }

  /** The bytes themselves, not a copy: do not change or keep them. */
  reveal(): Buffer {
    return this.#bytes;
  }

  equals(other: SecretValue): boolean {
    return this.length === other.length && timingSafeEqual(this.#bytes, other.#bytes);
  }

  /** Overwrites the bytes. The value is of no use afterwards. */
  wipe(): void {
    this.#bytes.fill(0);
  }

  toString(): string {
    return redacted;
  }

  toJSON(): string {
    return redacted;
  }

  [inspect.custom](): string {
    return redacted;
  }
}
