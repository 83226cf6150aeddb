/* The parser of h2.bpf.c, loaded into this kernel: one connection of HTTP/2, record after record. */
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { bytes, list, i32, struct, u16, u32, u64, u8 } from "../../src/dataplane/codec.ts";
import { BpfObject, projectRoot } from "../../src/dataplane/index.ts";
import { codes } from "./h1-program.ts";
import { type State, states } from "./h1-program.ts";

/** What the parser said of one record. */
export interface Reading {
  readonly state: State;
  /** Of the record, [0, head) and [tail, end) have been read. */
  readonly head: number;
  readonly tail: number;
  readonly notes: readonly Note[];
}

/** A marker of a body, or of a header block that ends in this record. Offsets are in the record. */
export interface Note {
  /** In bits if it is coded; of one in base64: in the decoded text. */
  readonly marker: number;
  readonly base64: number | undefined;
  readonly percent: boolean;
  readonly huffman: boolean;
  readonly slot: "header" | "query" | "path" | "body";
  readonly forbidden: boolean;
  readonly header: string;
  /** From the marker on; not in a body. Else empty: no marker, but a block that refers to what the table keeps. */
  readonly token: string;
  /** Between these the placeholder must lie. */
  readonly from: number;
  readonly to: number;
  readonly bad: boolean;
  readonly repeats: boolean;
  readonly misused: boolean;
  readonly references: number;
  /** SipHash of the host as it stands there, under a key of zeros; 0: none. */
  readonly host: bigint;
}

export interface H2Program {
  /** The next record of the connection. At most 16400 bytes. */
  read(record: Buffer): Reading;
  /** Begins another connection. keep: what holds a marker and enters the table is a secret from then on. bodies: are read. */
  reset(options?: { readonly keep?: boolean; readonly bodies?: boolean }): void;
  close(): void;
}

const flags = { bad: 1 << 10, repeats: 1 << 12, misused: 1 << 13 };
const slots: Readonly<Record<number, Note["slot"]>> = { 1: "header", 4: "query", 8: "path", 16: "body" };

interface RawNote {
  readonly marker: number;
  readonly base64: number;
  readonly code: number;
  readonly slot: number;
  readonly forbidden: number;
  readonly isHuffman: number;
  readonly headerLength: number;
  readonly header: Buffer;
  readonly from: number;
  readonly to: number;
  readonly tokenBytes: number;
  readonly token: Buffer;
  readonly host: bigint;
  readonly flags: number;
  readonly references: number;
}

const note = struct<RawNote>(96, {
  marker: [0, i32],
  base64: [4, i32],
  code: [8, u8],
  slot: [9, u8],
  forbidden: [10, u8],
  isHuffman: [11, u8],
  headerLength: [12, u8],
  header: [13, bytes(39)],
  from: [52, u32],
  to: [56, u32],
  tokenBytes: [62, u8],
  token: [64, bytes(16)],
  host: [80, u64],
  flags: [88, u16],
  references: [90, u8],
});

interface Case {
  readonly parser: Buffer;
  readonly h2: Buffer;
  readonly end: number;
  readonly head: number;
  readonly tail: number;
  readonly readsBodies: number;
  readonly text: Buffer;
  readonly noteCount: number;
  readonly keep: number;
  readonly notes: readonly RawNote[];
}

/** h2.bpf.c asserts the offsets. */
const h2Case = struct<Case>(27328 + 64 * 96, {
  parser: [0, bytes(368)],
  h2: [368, bytes(9248)],
  end: [9620, u32],
  head: [9624, u32],
  tail: [9628, u32],
  readsBodies: [9635, u8],
  text: [10920, bytes(16400)],
  noteCount: [27320, u32],
  keep: [27324, u32],
  notes: [27328, list(note, 64)],
});

const blank = h2Case.decode(Buffer.alloc(h2Case.bytes));

function readable(raw: RawNote): Note {
  return {
    marker: raw.marker,
    base64: raw.code === codes.base64 ? raw.base64 : undefined,
    percent: raw.code === codes.percent,
    huffman: raw.isHuffman !== 0,
    slot: slots[raw.slot] ?? "header",
    forbidden: raw.forbidden !== 0,
    header: raw.header.toString("latin1", 0, raw.headerLength),
    token: raw.token.toString("latin1", 0, raw.tokenBytes),
    from: raw.from,
    to: raw.to,
    bad: (raw.flags & flags.bad) !== 0,
    repeats: (raw.flags & flags.repeats) !== 0,
    misused: (raw.flags & flags.misused) !== 0,
    references: raw.references,
    host: raw.host,
  };
}

/** Throws what the verifier said if the program is refused. */
export function loadH2Program(): H2Program {
  const object = new BpfObject(join(projectRoot, "build/test/h2.bpf.o"));
  const cases = object.map("cases", u32, h2Case);
  let { parser, h2, keep, readsBodies } = blank;
  return {
    read: (record) => {
      cases.set(0, { ...blank, parser, h2, keep, readsBodies, end: record.length, text: record });
      const { value } = object.testRun("parse_record");
      if (value !== 0) throw new Error(`parse_record returned ${value}`);
      const after = cases.get(0);
      if (!after) throw new Error("map cases is empty");
      ({ parser, h2 } = after);
      return {
        state: states[parser[107] ?? -1] ?? "lost",
        head: after.head,
        tail: after.tail,
        notes: after.notes.slice(0, after.noteCount).map(readable),
      };
    },
    reset: (options = {}) => {
      ({ parser, h2 } = blank);
      keep = options.keep ? 1 : 0;
      readsBodies = options.bodies ? 1 : 0;
    },
    close: () => {
      cases.close();
      object.close();
    },
  };
}
