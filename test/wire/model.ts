/** What the wire side promises of one TLS flow, in a few lines that know no state machine: the kernel must agree. */

export interface ModelRecord {
  /** Offset of its header in the stream. */
  readonly start: number;
  readonly end: number;
  readonly patched: boolean;
  /** Known by its fingerprint, and not by its place under the key: the first record of the key. */
  readonly named: boolean;
}

export interface ModelStream {
  readonly sent: Buffer;
  readonly patched: Buffer;
  readonly records: readonly ModelRecord[];
  /** Offset from which the model looks on: the handshake has passed. */
  readonly start: number;
}

const headerBytes = 5;
/** Header, explicit nonce, fingerprint. */
const nameBytes = 29;
const slots = 16;

export class Model {
  readonly #stream: ModelStream;
  /** Offset of the first byte that has not been seen. */
  next: number;
  /** Offset of the first byte that the peer has not been given. */
  delivered: number;
  attested = true;
  substitutions = 0;
  #bound = false;
  /** End of the last patched record that was acknowledged. */
  #freed = 0;
  readonly #decided = new Set<ModelRecord>();
  readonly #waiting = new Set<ModelRecord>();
  readonly #reported = new Set<ModelRecord>();

  constructor(stream: ModelStream) {
    this.#stream = stream;
    this.next = stream.start;
    this.delivered = stream.start;
  }

  /** The segment [from, to) of the stream: what leaves, or undefined. */
  segment(from: number, to: number): Buffer | undefined {
    if (from > this.next) return undefined;
    if (to > this.next && !this.#see(to)) return undefined;
    for (const record of this.#waiting) {
      if (record.end > this.next || this.#reported.has(record)) continue;
      this.#reported.add(record);
      this.substitutions++;
    }
    if (from <= this.delivered) this.delivered = Math.max(this.delivered, to);
    /* Every byte of a patched record from the first copy on; no byte of another. */
    const left = Buffer.from(this.#stream.patched.subarray(from, to));
    /* What the peer has long had, and the kernel no longer knows to patch, is there for its numbers alone. */
    return left.fill(0, 0, Math.max(0, Math.min(this.#freed, to) - from));
  }

  acknowledge(to: number): void {
    for (const record of this.#waiting) {
      if (record.end > to) continue;
      this.#waiting.delete(record);
      this.#freed = Math.max(this.#freed, record.end);
    }
  }

  /** New bytes up to `to`. False: they end in a record that cannot be decided yet. */
  #see(to: number): boolean {
    const before = this.next;
    for (const record of this.#stream.records) {
      if (this.#decided.has(record)) continue;
      const passed = Math.max(0, before - record.start);
      const byName = record.named && (!this.#bound || passed >= headerBytes);
      if (to < Math.min(record.end, record.start + (byName ? nameBytes : headerBytes))) break;
      if (record.named) this.#bound = true;
      if (record.patched) {
        if (!this.attested || this.#waiting.size === slots) {
          this.next = Math.max(before, record.start);
          return false;
        }
        this.#waiting.add(record);
      }
      this.#decided.add(record);
    }
    this.next = to;
    return true;
  }
}
