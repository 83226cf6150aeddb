/**
 * Watches what leaves, as somebody on the wire and as the server at its end. It knows nothing of records in flight,
 * acknowledgements or tables: only which bytes the workload wrote, which they may have become, and the keys.
 */
import assert from "node:assert/strict";
import type { TrafficKey } from "./keys.ts";

export interface Protected {
  readonly start: number;
  readonly end: number;
  readonly key: TrafficKey;
  /** Its number under that key. */
  readonly sequence: number;
  /** The workload has not written what its library has encrypted: nobody can decrypt it. */
  readonly forged: boolean;
}

export interface Written {
  readonly sent: Buffer;
  readonly patched: Buffer;
  readonly records: readonly Protected[];
}

type Version = "sent" | "patched";

export class Oracle {
  readonly #written: Written;
  /** Which version of each record somebody on the wire has seen. */
  readonly #seen: (Version | undefined)[];
  readonly #received: Buffer;
  readonly #has: Uint8Array;
  /** The server has all bytes before this one. */
  delivered = 0;
  /** What was ever acknowledged to the workload, rightly or not. */
  #acknowledged = 0;
  /** The server said that it has what it has not, or the workload wrote two different streams: all bets are off. */
  #lied = false;
  #opened = 0;

  constructor(written: Written) {
    this.#written = written;
    this.#seen = written.records.map(() => undefined);
    this.#received = Buffer.alloc(written.sent.length);
    this.#has = new Uint8Array(written.sent.length);
  }

  /**
   * These bytes have left, from `from` of the stream on.
   * @param arrives whether this copy reaches the server, too
   * @param flip what the workload wrote otherwise in this copy: XOR at an offset of the stream
   */
  left(from: number, bytes: Buffer, arrives: boolean, flip?: { readonly at: number; readonly by: number }): void {
    const { sent, patched, records } = this.#written;
    const to = from + bytes.length;
    let record = this.#recordAt(from);
    for (let at = from; at < to; at++) {
      let byte = bytes[at - from] ?? 0;
      if (at === flip?.at) byte ^= flip.by;
      while (record < records.length && (records[record]?.end ?? 0) <= at) record++;
      const { start = at + 1 } = records[record] ?? {};
      const [before, after] = [sent[at], patched[at]];
      if (byte === before && byte === after) continue;
      /* What the server has acknowledged may come without its content. */
      if (at < this.#acknowledged && (byte === 0 || at === flip?.at)) continue;
      assert.ok(byte === before || byte === after, `byte ${at} is neither as written nor patched`);
      assert.ok(at >= start, `byte ${at} is patched outside all records`);
      const version: Version = byte === before ? "sent" : "patched";
      const seen = this.#seen[record];
      assert.ok(
        seen === undefined || seen === version,
        `record ${record} leaves ${version} at byte ${at} after it has left ${seen}`,
      );
      this.#seen[record] = version;
    }
    if (flip) this.#lied = true;
    if (arrives) this.#receive(from, bytes);
  }

  /** The workload has heard that the server has all before `to`. */
  acknowledged(to: number): void {
    this.#acknowledged = Math.max(this.#acknowledged, to);
    if (to > this.delivered) this.#lied = true;
  }

  #recordAt(offset: number): number {
    const { records } = this.#written;
    let [low, high] = [0, records.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((records[middle]?.end ?? 0) <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The first copy counts, as TCP has it. */
  #receive(from: number, bytes: Buffer): void {
    for (let i = 0; i < bytes.length; i++) {
      if (this.#has[from + i]) continue;
      this.#has[from + i] = 1;
      this.#received[from + i] = bytes[i] ?? 0;
    }
    while (this.#has[this.delivered]) this.delivered++;
    this.#open();
  }

  /** Decrypts what is complete. */
  #open(): void {
    for (;;) {
      const record = this.#written.records[this.#opened];
      if (!record || record.end > this.delivered) return;
      this.#opened++;
      if (this.#lied || record.forged) continue;
      const text = record.key.open(this.#received.subarray(record.start, record.end), record.sequence);
      assert.ok(text, `record ${this.#opened - 1} does not decrypt at the server: its tag is wrong`);
      const { placeholder, secret } = record.key.texts[record.sequence] ?? {};
      assert.ok(placeholder && secret);
      const wanted = this.#seen[this.#opened - 1] === "patched" ? secret : placeholder;
      assert.ok(text.equals(wanted), `record ${this.#opened - 1} decrypts to another text`);
    }
  }
}
