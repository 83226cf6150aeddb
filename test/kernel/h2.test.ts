/* The kernel's HTTP/2 parser and a reference that works another way say the same of every connection. Needs root. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { connect } from "node:http2";
import { Duplex } from "node:stream";
import { after, before, beforeEach, test } from "node:test";
import fc from "fast-check";
import { siphash } from "../../src/dataplane/siphash.ts";
import { type H2Program, loadH2Program, type Note } from "./h2-program.ts";
import { type Block, type Data, readConnection } from "./h2-reference.ts";
import { type Field, frame, integer, literal, preface, Writer } from "./h2-writer.ts";

let parser: H2Program;

before(() => {
  parser = loadH2Program();
});
beforeEach(() => parser.reset());
after(() => parser.close());

const longestRecord = 16384;
const marker = "kloak:MPZVR3GHWT4E6YBC";
const hashOf = (host: string | undefined) =>
  host === undefined ? 0n : siphash(Buffer.alloc(16), Buffer.from(host, "latin1"));

interface Heard {
  readonly lost: boolean;
  readonly blocks: readonly (readonly Note[])[];
  /** Bytes that were passed over. */
  readonly skipped: readonly { readonly start: number; readonly end: number }[];
}

/** Notes with their offsets in the connection. */
function hear(stream: Buffer, cuts: readonly number[], options: { readonly bodies?: boolean } = {}): Heard {
  parser.reset(options);
  const blocks: Note[][] = [];
  const skipped: { start: number; end: number }[] = [];
  let start = 0;
  let lost = false;
  const ends = [...cuts, stream.length].flatMap((end, at, all) => {
    const from = all[at - 1] ?? 0;
    const parts = Math.ceil((end - from) / longestRecord);
    return Array.from({ length: parts }, (_, part) => Math.min(from + (part + 1) * longestRecord, end));
  });
  for (const end of ends) {
    if (end <= start) continue;
    const reading = parser.read(stream.subarray(start, end));
    for (const note of reading.notes) {
      const shift = note.base64 === undefined ? (note.huffman ? start * 8 : start) : 0;
      const base64 = note.base64 === undefined ? undefined : note.base64 + (note.huffman ? start * 8 : start);
      blocks.push([{ ...note, marker: note.marker + shift, base64, from: note.from + start, to: note.to + start }]);
    }
    if (reading.tail > reading.head) skipped.push({ start: start + reading.head, end: start + reading.tail });
    lost = reading.state === "lost";
    start = end;
  }
  return { lost, blocks, skipped };
}

const recordStart = (cuts: readonly number[], at: number) => {
  const cut = cuts.filter((other) => other < at).at(-1) ?? 0;
  return cut + Math.floor((at - 1 - cut) / longestRecord) * longestRecord;
};

/** What the kernel has to say of a block: the markers in the record in which it ends. */
function expected(block: Block | Data, cuts: readonly number[]): readonly unknown[] {
  if (!("end" in block)) {
    const common = { bad: block.host === undefined, repeats: false, host: hashOf(block.host) };
    return block.markers.map(({ last, ...rest }) => ({ ...common, ...rest }));
  }
  const start = recordStart(cuts, block.end);
  const { bad, repeats, host } = block;
  const common = { bad, repeats, host: hashOf(host) };
  return block.markers.filter(({ last }) => last >= start).map(({ last, ...rest }) => ({ ...common, ...rest }));
}

function assertSame(stream: Buffer, cuts: readonly number[], options: { readonly bodies?: boolean } = {}): void {
  const reference = readConnection(stream, options);
  const heard = hear(stream, cuts, options);
  const wanted = reference.parts.flatMap((block) => expected(block, cuts));
  const notes = heard.blocks
    .flat()
    .filter(({ token, slot }) => token !== "" || slot === "body")
    .map(({ from, to, misused, references, ...note }) => note);
  if (reference.error === undefined && !reference.open) assert.equal(heard.lost, false, "lost");
  /* After an error nobody has to say anything. */
  assert.deepEqual(reference.error === undefined ? notes : notes.slice(0, wanted.length), wanted);
  for (const [note] of heard.blocks) {
    if (!note || note.base64 !== undefined || (note.token === "" && note.slot !== "body")) continue;
    const at = note.huffman ? Math.floor(note.marker / 8) : note.marker;
    if (at < note.from) continue;
    assert.ok(note.to <= stream.length && at < note.to, `${at} in ${note.from} to ${note.to}`);
  }
}

const of = (characters: string, maxLength: number, minLength = 0) =>
  fc.string({ unit: fc.constantFrom(...characters), minLength, maxLength });
const letters = "abcdefghijklmnopqrstuvwxyz0123456789-";
const visible = Array.from({ length: 94 }, (_, at) => String.fromCharCode(0x21 + at)).join("");

const withMarker = (around: fc.Arbitrary<string>) =>
  fc.oneof(
    { weight: 3, arbitrary: around },
    { weight: 2, arbitrary: fc.tuple(around, around).map(([first, last]) => `${first}${marker}${last}`) },
  );
const percentMarker = fc.constantFrom("kloak%3AMPZV", "kloak%3aMPZV", "kloak%3", "kloak%3AMPkloak%3a");
const value = withMarker(of(`${visible}  \t\xe9`, 40));
const basic = fc
  .tuple(of(visible, 5), of(visible, 5), fc.constantFrom("Basic ", "basic ", "BASIC  "))
  .map(([user, rest, scheme]) => scheme + Buffer.from(`${user}${marker}${rest}`).toString("base64"));
const header: fc.Arbitrary<Field> = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(of(letters, 45, 1), value) },
  {
    weight: 3,
    arbitrary: fc.tuple(fc.constantFrom("authorization", "x-api-key", "cookie", "user-agent", "te"), value),
  },
  { weight: 1, arbitrary: fc.tuple(fc.constantFrom("authorization", "proxy-authorization"), basic) },
);
/** Fields that make a request one that nobody should have to read. */
const odd: fc.Arbitrary<Field> = fc.constantFrom<Field>(
  ["Authorization", marker],
  [":authority", "b.test"],
  [":path", "http://b.test/"],
  [":scheme", "https://b.test/"],
  [":method", "GET / HTTP/1.1"],
  [":status", "200"],
  [":unknown", "x"],
  ["host", "b.test"],
  ["host", "a b"],
  ["transfer-encoding", "chunked"],
  ["connection", "close"],
  ["content-length", "1, 1"],
  ["x", `a\r\nb: ${marker}`],
  ["x", "\0"],
  ["a b", "x"],
);
const host = fc.constantFrom("a.test", "A.test:443", "b.test", "[::1]:8443");
const request = fc
  .record({
    method: fc.constantFrom("GET", "POST", "M-SEARCH"),
    path: fc.oneof(
      fc.constant("*"),
      withMarker(of(`${letters}/.%?&=`, 30)).map((path) => `/${path}`),
      fc.tuple(of(`${letters}/.%?&=`, 30), percentMarker, of(letters, 30)).map((parts) => `/${parts.join("")}`),
    ),
    host,
    second: fc.option(host, { freq: 6 }),
    headers: fc.array(header, { maxLength: 6 }),
    odd: fc.option(fc.tuple(odd, fc.nat(9)), { freq: 5 }),
    trailers: fc.option(fc.array(header, { maxLength: 2 }), { freq: 6 }),
    data: fc.option(fc.uint8Array({ maxLength: 100 })),
    ends: fc.boolean(),
  })
  .map(({ method, path, host, second, headers, odd, trailers, data, ends }) => {
    const fields: Field[] = [
      [":method", method],
      [":scheme", "https"],
      [":authority", host],
      [":path", path],
    ];
    if (second !== null) fields.push(["host", second]);
    fields.push(...headers.filter(([name]) => !/^(?:host|connection|upgrade|content-length)$/.test(name)));
    if (odd) fields.splice(odd[1], 0, odd[0]);
    return { fields, trailers, data, ends };
  });
const connection = fc
  .record({
    requests: fc.array(request, { minLength: 1, maxLength: 6 }),
    choices: fc.array(fc.nat(1000), { minLength: 7, maxLength: 60 }),
  })
  .map(({ requests, choices }) => {
    const writer = new Writer({ choices });
    const parts: Buffer[] = [preface, frame(4, 0, 0, Buffer.from([0, 3, 0, 0, 0, 100]))];
    requests.forEach(({ fields, trailers, data, ends }, at) => {
      const stream = at * 2 + 1;
      parts.push(writer.request(stream, fields, ends));
      if (writer.choose(3) === 0) parts.push(frame(6, 0, 0, Buffer.alloc(8, marker)));
      if (writer.choose(4) === 0) parts.push(frame(0xbe, 4, stream, Buffer.from(marker)));
      const mark = Buffer.from(writer.choose(4) > 0 ? marker : "kloak%3aMPZV");
      if (data) parts.push(writer.data(1 + 2 * writer.choose(at + 2), Buffer.concat([Buffer.from(data), mark])));
      if (writer.choose(6) === 0) parts.push(writer.data(stream, Buffer.alloc(0)));
      if (trailers) parts.push(writer.request(stream, trailers));
    });
    return Buffer.concat(parts);
  });
const cutsOf = (length: number) =>
  fc.array(fc.nat(length), { maxLength: 12 }).map((cuts) => cuts.toSorted((a, b) => a - b));

test("connections are read as the reference reads them", () => {
  fc.assert(
    fc.property(connection, (stream) => {
      assert.equal(readConnection(stream).error, undefined);
      assertSame(stream, []);
    }),
    { numRuns: 300 },
  );
});

test("bodies are read, and belong to the requests that the reference says", () => {
  fc.assert(
    fc.property(
      connection.chain((stream) => fc.tuple(fc.constant(stream), cutsOf(stream.length))),
      ([stream, cuts]) => assertSame(stream, cuts, { bodies: true }),
    ),
    { numRuns: 300 },
  );
});

test("of the last 16 requests with a body it is known whose they are", () => {
  const writer = new Writer({ choices: [1] });
  const streams = Array.from({ length: 20 }, (_, at) => at * 2 + 1);
  const parts = streams.map((stream) =>
    writer.request(stream, [
      [":method", "POST"],
      [":scheme", "https"],
      [":authority", `host-${stream}.test`],
      [":path", "/"],
    ]),
  );
  const data = streams.map((stream) => writer.data(stream, Buffer.from(marker)));
  const stream = Buffer.concat([preface, ...parts, ...data]);
  assertSame(stream, [], { bodies: true });
  const known = hear(stream, [], { bodies: true })
    .blocks.flat()
    .filter(({ bad }) => !bad);
  assert.deepEqual(
    known.map((note) => note.host),
    streams.slice(4).map((number) => hashOf(`host-${number}.test`)),
  );
});

test("however they are cut into records", () => {
  fc.assert(
    fc.property(
      connection.chain((stream) => fc.tuple(fc.constant(stream), cutsOf(stream.length))),
      ([stream, cuts]) => assertSame(stream, cuts),
    ),
    { numRuns: 200 },
  );
});

test("one byte a record", () => {
  fc.assert(
    fc.property(connection, (stream) =>
      assertSame(
        stream,
        Array.from({ length: stream.length }, (_, at) => at),
      ),
    ),
    { numRuns: 8 },
  );
});

test("what is damaged is read as the reference reads it, up to where a server has to give up", () => {
  fc.assert(
    fc.property(connection, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 3 }), (whole, at, bytes) => {
      const stream = Buffer.from(whole);
      stream.set(bytes, preface.length + (at % (stream.length - preface.length - bytes.length)));
      assertSame(stream, []);
    }),
    { numRuns: 500 },
  );
});

/** What Node's encoder (nghttp2) writes for these requests. */
async function written(requests: readonly (readonly Field[])[]): Promise<Buffer> {
  const parts: Buffer[] = [];
  const duplex = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      parts.push(chunk);
      done();
    },
  });
  const session = connect("https://a.test", { createConnection: () => duplex });
  session.on("error", () => undefined);
  for (const fields of requests) {
    const stream = session.request(Object.fromEntries(fields));
    stream.on("error", () => undefined);
  }
  const ends = () => readConnection(Buffer.concat(parts)).parts.length;
  while (ends() < requests.length) await new Promise((resolve) => setImmediate(resolve));
  session.destroy();
  return Buffer.concat(parts);
}

test("what nghttp2 writes is read as the reference reads it", async () => {
  const requests = Array.from({ length: 40 }, (_, at): Field[] => [
    [":path", `/${at}`],
    [":authority", at % 3 ? "a.test" : "b.test"],
    ["authorization", `Bearer ${"x".repeat(at)}${marker}`],
    ["x-api-key", `${"y".repeat(at % 5)}${marker}`],
    ["x-long", "z".repeat(at * 10)],
  ]);
  const stream = await written(requests);
  const { parts, error } = readConnection(stream);
  const blocks = parts.filter((part) => "end" in part);
  assert.equal(error, undefined);
  assert.deepEqual(
    blocks.map(({ host, bad }) => [host, bad]),
    requests.map((_, at) => [at % 3 ? "a.test" : "b.test", false]),
  );
  assert.ok(blocks.every(({ markers, references }) => markers.length + references >= 1));
  assertSame(stream, []);
  assertSame(stream, [100, 1000, 1001, 1002, 3000]);
});

test("payloads are passed over, and nothing else", () => {
  const writer = new Writer({ choices: [1, 1, 2, 2] });
  const fields: Field[] = [
    [":method", "POST"],
    [":authority", "a.test"],
    [":path", "/"],
    ["x", marker],
  ];
  const head = Buffer.concat([preface, writer.request(1, fields)]);
  const data = frame(0, 0, 1, Buffer.alloc(16000, marker));
  const stream = Buffer.concat([head, data, data, data, frame(0, 1, 1, Buffer.alloc(0))]);
  const { skipped, lost } = hear(stream, [head.length + data.length]);
  assert.equal(lost, false);
  for (const { start, end } of skipped) {
    for (let at = start; at < end; at++) assert.ok((at - head.length) % data.length >= 9 && at >= head.length, `${at}`);
  }
  assert.ok(skipped.reduce((sum, { start, end }) => sum + end - start, 0) >= 2 * 16000);
});

const get: readonly Field[] = [
  [":method", "GET"],
  [":scheme", "https"],
  [":authority", "a.test"],
  [":path", "/"],
];
const plain = (stream: number, block: Buffer, flags = 4) => frame(1, flags, stream, block);
const fieldsOf = (fields: readonly Field[]) => {
  const writer = new Writer({ choices: [1] });
  return Buffer.concat(fields.map((field) => writer.field(field)));
};
const good = fieldsOf([...get, ["x", marker]]);

const errors: readonly { readonly shape: string; readonly bytes: Buffer }[] = [
  { shape: "another preface", bytes: Buffer.from("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n") },
  { shape: "index 0", bytes: Buffer.concat([preface, plain(1, Buffer.from([0x80]))]) },
  { shape: "an index that nothing has", bytes: Buffer.concat([preface, plain(1, integer(0x80, 0x7f, 62))]) },
  { shape: "a string longer than its block", bytes: Buffer.concat([preface, plain(1, Buffer.from([0, 5, 0x61]))]) },
  { shape: "a name of no characters", bytes: Buffer.concat([preface, plain(1, Buffer.from([0, 0, 0]))]) },
  { shape: "an integer without end", bytes: Buffer.concat([preface, plain(1, Buffer.alloc(8, 0xff))]) },
  { shape: "an even stream", bytes: Buffer.concat([preface, plain(2, good)]) },
  { shape: "stream 0", bytes: Buffer.concat([preface, plain(0, good)]) },
  { shape: "CONTINUATION of nothing", bytes: Buffer.concat([preface, frame(9, 4, 1, good)]) },
  { shape: "another stream's CONTINUATION", bytes: Buffer.concat([preface, plain(1, good, 0), frame(9, 4, 3, good)]) },
  { shape: "DATA within a header block", bytes: Buffer.concat([preface, plain(1, good, 0), frame(0, 0, 1, good)]) },
  { shape: "PUSH_PROMISE", bytes: Buffer.concat([preface, frame(5, 4, 1, good)]) },
  { shape: "more padding than frame", bytes: Buffer.concat([preface, plain(1, Buffer.from([9, 0x82]), 12)]) },
  { shape: "a priority that is cut", bytes: Buffer.concat([preface, plain(1, Buffer.from([0, 0, 0]), 36)]) },
  {
    shape: "a table size after a field",
    bytes: Buffer.concat([preface, plain(1, Buffer.concat([good, Buffer.from([0x20])]))]),
  },
  {
    shape: "Huffman padding of zeros",
    bytes: Buffer.concat([preface, plain(1, Buffer.from([0, 0x81, 0b00011000, 0]))]),
  },
  {
    shape: "a whole byte of Huffman padding",
    bytes: Buffer.concat([preface, plain(1, Buffer.from([0, 0x82, 0b00011111, 0xff, 0]))]),
  },
  {
    shape: "Huffman's end of string",
    bytes: Buffer.concat([preface, plain(1, Buffer.from([0, 0x84, 0xff, 0xff, 0xff, 0xff, 0]))]),
  },
];

for (const { shape, bytes } of errors) {
  test(`${shape}: lost, and so is what follows`, () => {
    assert.notEqual(readConnection(bytes).error, undefined, "the reference says so too");
    const after = Buffer.concat([bytes, plain(5, good)]);
    const { lost, blocks } = hear(after, []);
    assert.deepEqual({ lost, blocks }, { lost: true, blocks: [] });
  });
}

test("a second connection's preface within the first is no HTTP/2", () => {
  const request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
  assert.equal(parser.read(Buffer.concat([Buffer.from(request), preface, plain(1, good)])).state, "lost");
});

test("a field that holds a secret is known by its index for as long as the table can hold it", () => {
  const insert = (at: number) => Buffer.concat([Buffer.from([0x40]), literal(`x${at}`, false), literal("y", true)]);
  parser.reset({ keep: true });
  const secret = Buffer.concat([Buffer.from([0x40]), literal("x-key", true), literal(marker, true)]);
  const base = fieldsOf(get);
  const first = parser.read(Buffer.concat([preface, plain(1, Buffer.concat([base, secret]))]));
  assert.deepEqual(
    first.notes.map(({ token, references }) => [token, references]),
    [[marker.slice(0, 16), 0]],
  );
  for (let at = 0; at < 127; at++) {
    const block = Buffer.concat([base, integer(0x80, 0x7f, 62 + at)]);
    const [note] = parser.read(plain(3 + 4 * at, block)).notes;
    assert.deepEqual([note?.token, note?.references, note?.misused], ["", 1, false]);
    assert.deepEqual(parser.read(plain(5 + 4 * at, Buffer.concat([base, insert(at)]))).notes, []);
  }
  // 128 more entries than the model holds: what has fallen out may still be in a table larger than usual.
  parser.read(plain(601, Buffer.concat([base, insert(1)])));
  const [note] = parser.read(plain(603, Buffer.concat([base, integer(0x80, 0x7f, 62 + 128)]))).notes;
  assert.deepEqual([note?.bad, note?.misused], [true, true]);
});

test("a field sent again in its own block is told from one of an earlier block", () => {
  const secret = Buffer.concat([Buffer.from([0x40]), literal("x-key", true), literal(marker, true)]);
  const block = Buffer.concat([fieldsOf(get), secret, Buffer.from([0xbe])]);
  const { notes } = parser.read(Buffer.concat([preface, plain(1, block)]));
  assert.deepEqual(
    notes.map(({ repeats }) => repeats),
    [true],
  );
});

test("a name that is bad stays bad where its index names it", () => {
  const bad = Buffer.concat([Buffer.from([0x40]), literal("Host", false), literal("b.test", false)]);
  const again = Buffer.concat([fieldsOf(get), Buffer.from([0x7e]), literal("b.test", false), good.subarray(-30)]);
  parser.read(Buffer.concat([preface, plain(1, Buffer.concat([fieldsOf(get), bad]))]));
  const value = literal(marker, true);
  const block = Buffer.concat([again.subarray(0, -30), Buffer.from([0x00]), literal("x", false), value]);
  assert.deepEqual(
    parser.read(plain(3, block)).notes.map(({ bad }) => bad),
    [true],
  );
});

test("a header block of 64 KiB in a flood of CONTINUATION is followed", () => {
  const filler = Array.from({ length: 64 }, (_, at) =>
    Buffer.concat([Buffer.from([0]), literal(`x-${at}`, false), literal("y".repeat(1024), false)]),
  );
  const block = Buffer.concat([fieldsOf(get), ...filler, fieldsOf([["x", marker]])]);
  const frames = [plain(1, block.subarray(0, 5), 0)];
  for (let at = 5; at < block.length; at += 50) {
    frames.push(frame(9, at + 50 >= block.length ? 4 : 0, 1, block.subarray(at, at + 50)), ...[]);
  }
  assertSame(Buffer.concat([preface, ...frames]), []);
});
