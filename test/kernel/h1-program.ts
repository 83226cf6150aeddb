/* The parser of h1.bpf.c, loaded into this kernel: one stream of requests, record after record. */
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { bytes, i32, list, struct, u16, u32, u64, u8 } from "../../src/dataplane/codec.ts";
import { BpfObject, projectRoot } from "../../src/dataplane/index.ts";

export const states = [
  "idle",
  "method",
  "target",
  "version",
  "line-start",
  "name",
  "value-start",
  "value",
  "value-lf",
  "block-lf",
  "body",
  "chunk-size",
  "chunk-extension",
  "chunk-size-lf",
  "chunk-data",
  "chunk-cr",
  "chunk-lf",
  "last-cr",
  "last-lf",
  "opaque",
  "lost",
  "http2",
  "http2-data",
] as const;
export type State = (typeof states)[number];

/** What the parser said of one record. */
export interface Reading {
  readonly state: State;
  /** Bytes of body or chunk still to come. */
  readonly left: bigint;
  /** Of the record, [0, head) and [tail, end) have been read. */
  readonly head: number;
  readonly tail: number;
  readonly notes: readonly Note[];
}

/** A marker. Offsets are in the record, and negative where it began in an earlier one. */
export interface Note {
  /** Of a marker in base64: its offset in the decoded text. */
  readonly marker: number;
  /** Where the base64 text starts. */
  readonly base64: number | undefined;
  /** Its colon is percent-encoded. */
  readonly percent: boolean;
  readonly slot: "header" | "query" | "path" | "body" | "lost";
  readonly forbidden: boolean;
  readonly header: string;
  /** Where the body ends in this record, or the record; 0 in a header block. */
  readonly to: number;
  /** The parser's when it handed the marker over: at the end of the header block, of the record, or at a loss. */
  readonly state: State;
  readonly host: string | undefined;
}

export interface H1Program {
  /** The next record of the stream. At most 16400 bytes. */
  read(record: Buffer): Reading;
  /** Begins another stream. readsBodies: they are a slot. */
  reset(options?: { readonly readsBodies?: boolean }): void;
  close(): void;
}

const hasHost = 1;
/** enum h1_code */
export const codes = { base64: 1, percent: 2 };
const slots: Readonly<Record<number, Note["slot"]>> = { 0: "lost", 1: "header", 4: "query", 8: "path", 16: "body" };

interface RawNote {
  readonly marker: number;
  readonly base64: number;
  readonly code: number;
  readonly slot: number;
  readonly forbidden: number;
  readonly headerLength: number;
  readonly to: number;
  readonly header: Buffer;
  readonly state: number;
  readonly flags: number;
  readonly hostLength: number;
  readonly host: Buffer;
}

const note = struct<RawNote>(344, {
  marker: [0, i32],
  base64: [4, i32],
  code: [8, u8],
  slot: [9, u8],
  forbidden: [10, u8],
  headerLength: [12, u8],
  header: [13, bytes(39)],
  to: [56, u32],
  state: [80, u8],
  flags: [81, u8],
  hostLength: [82, u16],
  host: [88, bytes(256)],
});

interface Case {
  readonly left: bigint;
  readonly parser: Buffer;
  readonly end: number;
  readonly head: number;
  readonly tail: number;
  readonly readsBodies: number;
  readonly text: Buffer;
  readonly noteCount: number;
  readonly notes: readonly RawNote[];
}

/** h1.bpf.c asserts the offsets. */
const h1Case = struct<Case>(18080 + 64 * 344, {
  left: [0, u64],
  parser: [0, bytes(368)],
  end: [372, u32],
  head: [376, u32],
  tail: [380, u32],
  readsBodies: [387, u8],
  text: [1672, bytes(16400)],
  noteCount: [18072, u32],
  notes: [18080, list(note, 64)],
});

const blank = h1Case.decode(Buffer.alloc(h1Case.bytes));

function readable(raw: RawNote): Note {
  return {
    marker: raw.marker,
    base64: raw.code === codes.base64 ? raw.base64 : undefined,
    percent: raw.code === codes.percent,
    slot: slots[raw.slot] ?? "lost",
    forbidden: raw.forbidden !== 0,
    header: raw.header.toString("latin1", 0, raw.headerLength),
    to: raw.to,
    state: states[raw.state] ?? "lost",
    host: raw.flags & hasHost ? raw.host.toString("latin1", 0, raw.hostLength) : undefined,
  };
}

/** Throws what the verifier said if the program is refused. */
export function loadH1Program(): H1Program {
  const object = new BpfObject(join(projectRoot, "build/test/h1.bpf.o"));
  const cases = object.map("cases", u32, h1Case);
  let parser = blank.parser;
  let readsBodies = 0;
  return {
    read: (record) => {
      cases.set(0, {
        ...blank,
        left: parser.readBigUInt64LE(0),
        parser,
        end: record.length,
        readsBodies,
        text: record,
      });
      const { value } = object.testRun("parse_record");
      if (value !== 0) throw new Error(`parse_record returned ${value}`);
      const after = cases.get(0);
      if (!after) throw new Error("map cases is empty");
      parser = after.parser;
      return {
        state: states[parser[107] ?? -1] ?? "lost",
        left: after.left,
        head: after.head,
        tail: after.tail,
        notes: after.notes.slice(0, after.noteCount).map(readable),
      };
    },
    reset: (options) => {
      parser = blank.parser;
      readsBodies = options?.readsBodies ? 1 : 0;
    },
    close: () => {
      cases.close();
      object.close();
    },
  };
}
