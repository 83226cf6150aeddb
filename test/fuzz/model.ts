/**
 * What the wire side promises of one connection, segment by segment, written from its rules rather than from its code:
 * it sees whole records where the kernel sees bytes. The kernel must agree with it in every packet.
 */

export type Proof = "flow" | "record" | "none";

export interface ModelRecord {
  /** Offset of its header in the stream. */
  readonly start: number;
  readonly end: number;
  /** Bytes of explicit nonce. */
  readonly prefix: number;
  readonly kind:
    | "clear" /* before there are keys */
    | "finished" /* of TLS 1.3, under a key of its own */
    | "data"
    | "garbage" /* no TLS record at all */;
  /** The cipher side has heard it: as record `index` of key `key`. */
  readonly heard: boolean;
  readonly key: number;
  readonly index: number;
  /** Of its inner type: a KeyUpdate. */
  readonly handshake: boolean;
  /** One after which the kernel lets another key follow. */
  readonly mayRekey: boolean;
  /** Where placeholders begin in the ciphertext, and what they ask for. */
  readonly edits: readonly { readonly offset: number; readonly proof: Proof }[];
  /** Why there is nothing to be replaced, whatever else holds. */
  readonly refusal?: string;
}

export interface ModelStream {
  readonly sent: Buffer;
  readonly patched: Buffer;
  readonly records: readonly ModelRecord[];
  /** TLS 1.2: the key is in use from its Finished on, which is record 0 of it. */
  readonly tls12: boolean;
}

/** Of destinations: granted, refused, or not yet answered. */
export type Attested = "yes" | "refused" | "unknown";

/** What leaves of a segment: its payload, or nothing at all. */
export type Left = Buffer | undefined;

const headerBytes = 5;
/** Header, explicit nonce, fingerprint. */
const nameBytes = 29;
const slots = 16;

export class Model {
  readonly #stream: ModelStream;
  /** Offset of the first byte that has not been seen; once loose, the end of the last segment. */
  next = 0;
  /** Unknown: nothing of it has been seen, not even its SYN. */
  state: "unknown" | "tracked" | "loose" | "dead";
  attested: Attested = "yes";
  substituted = 0;
  /** Reasons of refusals, in their order. */
  readonly refused: string[] = [];
  #phase: "early" | "finished" | "bound" | "lost" = "early";
  #key = -1;
  #index = 0;
  #mayRekey = false;
  /** How many records have been decided about. */
  #decided = 0;
  readonly #waiting: { readonly record: ModelRecord; touched: boolean; reported: boolean }[] = [];
  /** End of the last patched record that was acknowledged. */
  #freed = 0;

  /** @param known its SYN has been seen */
  constructor(stream: ModelStream, known = true) {
    this.#stream = stream;
    this.state = known ? "tracked" : "unknown";
  }

  /** The bytes [from, to) of the stream in one segment. */
  segment(from: number, to: number): Left {
    if (from === to) return Buffer.alloc(0);
    if (this.state === "dead") return undefined;
    if (this.state === "unknown") this.state = "loose";
    if (this.state === "loose") this.next = this.#waiting.length > 0 ? Math.max(this.next, to) : to;
    else if (from > this.next) return undefined;
    else if (to > this.next && !this.#see(to)) return undefined;
    return this.#leave(from, to);
  }

  reset(from: number, to: number): Left {
    /* Without text it is not the first that is known of a connection. */
    if (this.state === "unknown" && from === to) return Buffer.alloc(0);
    this.state = "dead";
    this.#waiting.length = 0;
    return from === to ? Buffer.alloc(0) : undefined;
  }

  /** The same bytes in a datagram that is cut into fragments: do they pass? */
  fragments(from: number): boolean {
    if (this.state === "dead" || this.#waiting.length > 0 || from < this.#freed) return false;
    if (this.state !== "unknown") this.state = "loose";
    return true;
  }

  acknowledge(to: number): void {
    if (to > this.next + 1) return;
    for (const waiting of [...this.#waiting]) {
      const { record, touched } = waiting;
      if (record.end > to || record.end > this.next) continue;
      this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
      if (touched) this.#freed = Math.max(this.#freed, record.end);
    }
  }

  /** Nothing of the connection is kept for its peer any more. */
  get idle(): boolean {
    return this.#waiting.length === 0;
  }

  #leave(from: number, to: number): Buffer {
    const { sent, patched } = this.#stream;
    const left = Buffer.from(sent.subarray(from, to));
    for (const waiting of this.#waiting) {
      const { record } = waiting;
      const [start, end] = [Math.max(from, record.start), Math.min(to, record.end)];
      if (start < end) {
        patched.copy(left, start - from, start, end);
        if (sent.compare(patched, start, end, start, end) !== 0) waiting.touched = true;
      }
      if (waiting.reported || record.end > this.next) continue;
      waiting.reported = true;
      this.substituted += record.edits.length;
    }
    /* What the peer has long had, and the kernel no longer knows to patch, is there for its numbers alone. */
    return left.fill(0, 0, Math.max(0, Math.min(this.#freed, to) - from));
  }

  /** New bytes up to `to`. False: they end in a record that cannot be decided yet. */
  #see(to: number): boolean {
    const before = this.next;
    for (;;) {
      const record = this.#stream.records[this.#decided];
      if (!record) break;
      const passed = Math.max(0, before - record.start);
      if (to < record.start + this.#needs(record, passed)) break;
      if (record.kind === "garbage") {
        this.state = "loose";
        break;
      }
      if (!this.#decide(record, passed)) {
        this.next = Math.max(before, record.start);
        return false;
      }
      this.#decided++;
    }
    this.next = to;
    return true;
  }

  /** Bytes of the record that must have come before it is decided about. */
  #needs(record: ModelRecord, passed: number): number {
    const name = Math.min(record.end - record.start, nameBytes);
    if (record.kind === "garbage" || record.kind === "clear") return headerBytes;
    if (this.#phase !== "bound" || this.#mayRekey || !this.#isNext(record)) return name;
    /* Its name was read before it was held. */
    return passed >= headerBytes ? name : headerBytes;
  }

  #isNext(record: ModelRecord): boolean {
    return record.heard && record.key === this.#key && record.index === this.#index;
  }

  /** False: hold it. */
  #decide(record: ModelRecord, passed: number): boolean {
    if (record.kind === "clear") return true;
    if (record.kind === "finished") {
      this.#phase = "finished";
      return true;
    }
    const first = record.heard && record.index === 0;
    const mayBind = this.#phase === "bound" ? this.#mayRekey && record.key !== this.#key : this.#mayBind(record);
    if (first && mayBind) {
      this.#phase = "bound";
      this.#key = record.key;
      this.#index = 0;
      this.#mayRekey = false;
    } else if (this.#phase !== "bound" || !this.#isNext(record)) {
      this.#phase = "lost";
    }
    if (!this.#consider(record, passed)) return false;
    if (this.#phase === "bound") {
      this.#index++;
      this.#mayRekey = record.mayRekey;
    }
    return true;
  }

  /** A handshake message under the first key of TLS 1.3 would be more of the handshake: a certificate, perhaps. */
  #mayBind(record: ModelRecord): boolean {
    return this.#stream.tls12 ? this.#phase === "early" : this.#phase === "finished" && !record.handshake;
  }

  /** Takes up the record's patch, or refuses it. False: hold it. */
  #consider(record: ModelRecord, passed: number): boolean {
    if (!record.heard || (record.edits.length === 0 && record.refusal === undefined)) return true;
    const reason = this.#verdict(record, passed);
    if (reason === "hold" || (reason === undefined && this.#waiting.length === slots)) return false;
    if (reason === undefined) this.#waiting.push({ record, touched: false, reported: false });
    else this.refused.push(reason);
    return true;
  }

  #verdict({ edits, refusal, prefix }: ModelRecord, passed: number): string | undefined {
    if (edits.length === 0) return refusal;
    let hold = false;
    for (const { offset, proof } of edits) {
      if (proof === "flow" && this.#phase !== "bound") return "unproven-flow";
      if (refusal !== undefined) return refusal;
      if (passed - headerBytes - prefix > offset) return "too-late";
      if (this.attested === "refused") return "attestation-failed";
      if (this.attested === "unknown") hold = true;
    }
    return hold ? "hold" : undefined;
  }
}
