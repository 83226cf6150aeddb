/* The kernel's HTTP/1.1 parser and a reference that works another way say the same of every stream. Needs root. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { after, before, beforeEach, test } from "node:test";
import fc from "fast-check";
import { type H1Program, loadH1Program, type Reading, type State } from "./h1-program.ts";
import { type Marker, readStream, type Verdict } from "./h1-reference.ts";

let parser: H1Program;

before(() => {
  parser = loadH1Program();
});
beforeEach(() => parser.reset());
after(() => parser.close());

const ends: Readonly<Partial<Record<State, Verdict["end"]>>> = {
  idle: "idle",
  body: "body",
  "chunk-data": "body",
  "chunk-size": "chunks",
  "chunk-extension": "chunks",
  "chunk-size-lf": "chunks",
  "chunk-cr": "chunks",
  "chunk-lf": "chunks",
  "last-cr": "chunks",
  "last-lf": "chunks",
  opaque: "opaque",
  lost: "lost",
};

const marker = "kloak:MPZVR3GHWT4E6YBC";
const longestRecord = 16384;

const of = (characters: string, maxLength: number, minLength = 0) =>
  fc.string({ unit: fc.constantFrom(...characters), minLength, maxLength });
const digits = "0123456789";
const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const visible = Array.from({ length: 94 }, (_, at) => String.fromCharCode(0x21 + at)).join("");

const withMarker = (around: fc.Arbitrary<string>) =>
  fc.oneof(
    { weight: 3, arbitrary: around },
    { weight: 1, arbitrary: fc.tuple(around, around).map(([first, last]) => `${first}${marker}${last}`) },
  );

const percentMarker = fc.constantFrom(
  "kloak%3AMPZV",
  "kloak%3aMPZV",
  "kloak%3",
  "kkloak%3Akloak%3a",
  "kloak%3bkloak%253A",
);
const urlText = of(`${letters}${digits}/-._~%?&=:@`, 40);
const target = fc.oneof(
  withMarker(urlText).map((path) => `/${path}`),
  fc.tuple(urlText, percentMarker, urlText).map((parts) => `/${parts.join("")}`),
  fc.constant("*"),
);
const value = withMarker(of(`${visible}  \t\xe9`, 60));
const basic = fc
  .tuple(of(visible, 5), of(visible, 5), fc.constantFrom("Basic ", "basic ", "BASIC  "), fc.boolean())
  .map(([user, rest, scheme, cut]) => {
    const base64 = Buffer.from(`${user}${marker}${rest}`).toString("base64");
    return `${scheme}${cut ? base64.replace(/=+$/, "") : base64}`;
  });
const name = fc.oneof(
  of(`${letters}${digits}!#$%&'*+-.^_|~`, 50, 1),
  fc.constantFrom(
    "Cookie",
    "X-Api-Key",
    "content-type",
    "X-Forwarded-For",
    "User-Agent",
    "Origin",
    "Referer",
    "Expect",
  ),
);
const header = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(name, value) },
  { weight: 1, arbitrary: fc.tuple(fc.constantFrom("Authorization", "Proxy-Authorization", "x-basic"), basic) },
);
const host = fc.tuple(fc.constantFrom("Host", "host", "HOST"), of(`${letters}${digits}.-:`, 40, 1));
const spaces = fc.constantFrom("", " ", "  ", " \t");

const bodyBytes = fc
  .tuple(fc.uint8Array({ maxLength: 100 }), fc.oneof(fc.constant(""), withMarker(urlText), percentMarker), urlText)
  .map(([bytes, marked, rest]) => Buffer.concat([bytes, Buffer.from(marked), Buffer.from(rest)]));

/** A request that everybody reads alike. */
const request = fc
  .record({
    method: fc.constantFrom("GET", "POST", "PUT", "DELETE", "OPTIONS", "M-SEARCH"),
    target,
    headers: fc.array(header, { maxLength: 8 }),
    host: fc.option(host),
    hostAt: fc.nat(8),
    space: spaces,
    body: fc.oneof(
      fc.constant(undefined),
      bodyBytes.map((bytes) => ({ bytes, chunks: [] as number[] })),
      fc
        .tuple(bodyBytes, fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 6 }))
        .map(([bytes, chunks]) => ({ bytes, chunks })),
    ),
  })
  .map(({ method, target, headers, host, hostAt, space, body }) => {
    const lines = headers
      .filter(([name]) => !/^(?:host|upgrade|content-length|transfer-encoding)$/i.test(name))
      .map(([name, value]) => `${name}:${space}${value}`);
    if (host) lines.splice(hostAt, 0, `${host[0]}:${space}${host[1]}${space}`);
    const parts: Buffer[] = [];
    if (body?.chunks.length) {
      lines.push("Transfer-Encoding: Chunked");
      let at = 0;
      for (const size of [...body.chunks, Number.POSITIVE_INFINITY]) {
        const chunk = body.bytes.subarray(at, at + size);
        at += chunk.length;
        const extension = at % 2 ? "" : `;name="kloak: value"`;
        if (chunk.length)
          parts.push(Buffer.from(`${chunk.length.toString(16)}${extension}\r\n`), chunk, Buffer.from("\r\n"));
      }
      parts.push(Buffer.from("0\r\n\r\n"));
    } else if (body) {
      lines.push(`Content-Length: ${body.bytes.length}`);
      parts.push(body.bytes);
    }
    const block = [`${method} ${target} HTTP/1.1`, ...lines, "", ""].join("\r\n");
    return Buffer.concat([Buffer.from(block, "latin1"), ...parts]);
  });
const requests = fc.array(request, { minLength: 1, maxLength: 3 }).map((list) => Buffer.concat(list));

/** Shapes of one damaged place. */
const damage = fc.record({
  at: fc.nat(),
  remove: fc.nat(3),
  insert: fc.constantFrom("", "\r", "\n", "\r\n", "\r\n ", "\0", " ", "\t", ":", "\x7f", "\r\n\r\n", "a", ",", ";"),
});

interface Heard {
  readonly state: State;
  readonly markers: readonly Marker[];
  readonly lost: number;
  /** Bytes that were passed over. */
  readonly skipped: readonly { readonly start: number; readonly end: number }[];
}

function hear(stream: Buffer, cuts: readonly number[], readsBodies: boolean): Heard {
  parser.reset({ readsBodies });
  const markers: Marker[] = [];
  const skipped: { start: number; end: number }[] = [];
  let start = 0;
  let lost = 0;
  let state: State = "idle";
  for (const end of [...cuts, stream.length]) {
    if (end <= start) continue;
    const reading: Reading = parser.read(stream.subarray(start, end));
    for (const note of reading.notes) {
      if (note.slot === "lost" || note.state === "lost") lost++;
      const { slot, forbidden, header, host, percent } = note;
      if (slot === "lost") continue;
      const base64 = note.base64 === undefined ? undefined : note.base64 + start;
      const marker = base64 === undefined ? note.marker + start : note.marker;
      markers.push({ marker, base64, percent, slot, forbidden, header, host });
    }
    if (reading.tail > reading.head) skipped.push({ start: start + reading.head, end: start + reading.tail });
    state = reading.state;
    start = end;
  }
  return { state, markers, lost, skipped };
}

const place = (marker: Marker) => marker.base64 ?? marker.marker;
const byPlace = (a: Marker, b: Marker) => place(a) - place(b) || a.marker - b.marker;

function assertSame(stream: Buffer, cuts: readonly number[], readsBodies = false): void {
  const expected = readStream(stream);
  const heard = hear(stream, cuts, readsBodies);
  const end = ends[heard.state] ?? "block";
  /* Of a block without end the reference cannot say whether it is lost already. */
  if (expected.end === "block") assert.ok(end === "block" || end === "lost", end);
  else assert.equal(end, expected.end);

  const isKnown = (found: Marker): boolean => found.slot === "body" || place(found) < expected.known;
  const known = heard.markers.filter(isKnown).toSorted(byPlace);
  const wanted = [...expected.markers, ...(readsBodies ? expected.inBodies : [])].toSorted(byPlace);
  assert.deepEqual(
    known.map(({ host, ...found }) => found),
    wanted.map(({ host, ...found }) => found),
  );
  known.forEach((found, at) => {
    /* A record may end before Host does. */
    if (found.host !== undefined || !cuts.length) assert.equal(found.host, wanted[at]?.host);
  });
  for (const { start, end } of heard.skipped) {
    if (heard.state === "opaque") continue;
    for (let at = start; at < end; at++)
      assert.ok(
        expected.bodies.some((body) => body.start <= at && at < body.end),
        `byte ${at} has been passed over`,
      );
  }
}

const cutsOf = (length: number) =>
  fc.array(fc.nat(length), { maxLength: 12 }).map((cuts) => cuts.toSorted((a, b) => a - b));

test("requests are read as the reference reads them", () => {
  fc.assert(fc.property(requests, (stream) => assertSame(stream, [])));
});

test("however they are cut into records", () => {
  fc.assert(
    fc.property(
      requests.chain((stream) => fc.tuple(fc.constant(stream), cutsOf(stream.length))),
      ([stream, cuts]) => assertSame(stream, cuts),
    ),
  );
});

test("and their bodies, where they are a slot", () => {
  fc.assert(
    fc.property(
      requests.chain((stream) => fc.tuple(fc.constant(stream), fc.oneof(fc.constant([]), cutsOf(stream.length)))),
      ([stream, cuts]) => assertSame(stream, cuts, true),
    ),
  );
});

test("one byte a record", () => {
  fc.assert(
    fc.property(request, (stream) =>
      assertSame(
        stream,
        Array.from({ length: stream.length }, (_, at) => at),
      ),
    ),
    { numRuns: 10 },
  );
});

test("what is damaged is read as the reference reads it, and nothing after a loss is a slot", () => {
  fc.assert(
    fc.property(requests, damage, requests, (first, { at, remove, insert }, second) => {
      const place = at % first.length;
      const stream = Buffer.concat([
        first.subarray(0, place),
        Buffer.from(insert, "latin1"),
        first.subarray(place + remove),
        second,
      ]);
      assertSame(stream, []);
    }),
  );
});

test("a body is not read, whatever it imitates", () => {
  const inner = `GET / HTTP/1.1\r\nHost: a.test\r\nX: ${marker}\r\n\r\n`;
  const block = `POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: ${inner.length}\r\n\r\n`;
  const reading = parser.read(Buffer.from(block + inner));
  assert.deepEqual(reading.notes, []);
  assert.equal(reading.head, block.length);
  assert.equal(reading.tail, block.length + inner.length);
  assert.equal(reading.state, "idle");
});

for (const [text, marker, to] of [
  ['{"key":"kloak:MPZVR3GHWT4E6YBC"}', 8, undefined],
  ["key=kloak%3AMPZVR3GHWT4E6YBC&a=b", 4, undefined],
  ["kloak:MPZVR3GHWT", 0, 16],
] as const) {
  test(`a body that is a slot is read, and its end is known: ${text}`, () => {
    parser.reset({ readsBodies: true });
    const block = `POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: ${to ?? text.length}\r\n\r\n`;
    const { notes, head, state } = parser.read(Buffer.from(`${block}${text}GET / HTTP/1.1\r\n\r\n`));
    assert.deepEqual(
      notes.map((note) => [note.slot, note.marker - block.length, note.to - block.length, note.host, note.state]),
      [["body", marker, to ?? text.length, "a.test", "idle"]],
    );
    assert.equal(head, block.length);
    assert.equal(state, "idle");
  });
}

test("the longest record is read", () => {
  const start = "GET / HTTP/1.1\r\nHost: a.test\r\nX: ";
  const end = `${marker}\r\n\r\n`;
  const record = `${start}${"x".repeat(longestRecord - start.length - end.length)}${end}`;
  const reading = parser.read(Buffer.from(record));
  assert.equal(reading.state, "idle");
  assert.deepEqual(
    reading.notes.map((note) => [note.marker, note.header, note.host]),
    [[longestRecord - end.length, "x", "a.test"]],
  );
});

const get = "GET / HTTP/1.1\r\n";
const smuggled: readonly { readonly shape: string; readonly text: string }[] = [
  { shape: "two lengths", text: `${get}Content-Length: 1\r\nContent-Length: 1\r\n\r\n` },
  { shape: "a list of lengths", text: `${get}Content-Length: 1, 1\r\n\r\n` },
  { shape: "a signed length", text: `${get}Content-Length: +1\r\n\r\n` },
  { shape: "a length that overflows", text: `${get}Content-Length: 18446744073709551617\r\n\r\n` },
  { shape: "an empty length", text: `${get}Content-Length:\r\n\r\n` },
  { shape: "a length and chunks", text: `${get}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n` },
  { shape: "chunks and a length", text: `${get}Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n` },
  { shape: "two codings", text: `${get}Transfer-Encoding: gzip, chunked\r\n\r\n` },
  { shape: "chunked twice", text: `${get}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n` },
  { shape: "an unknown coding", text: `${get}Transfer-Encoding: xchunked\r\n\r\n` },
  { shape: "chunks in HTTP/1.0", text: "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" },
  { shape: "white space before the colon", text: `${get}Transfer-Encoding : chunked\r\n\r\n` },
  { shape: "a folded line", text: `${get}X: a\r\n b\r\n\r\n` },
  { shape: "a folded first line", text: `${get} X: a\r\n\r\n` },
  { shape: "a bare line feed", text: `${get}X: a\nY: b\r\n\r\n` },
  { shape: "line feeds alone", text: "GET / HTTP/1.1\nHost: a\n\n" },
  { shape: "a bare carriage return", text: `${get}X: a\rY: b\r\n\r\n` },
  { shape: "a NUL", text: `${get}X: a\0b\r\n\r\n` },
  { shape: "a nameless header", text: `${get}: a\r\n\r\n` },
  { shape: "a line without colon", text: `${get}X\r\n\r\n` },
  { shape: "two Hosts", text: `${get}Host: a\r\nHost: a\r\n\r\n` },
  { shape: "an empty Host", text: `${get}Host:\r\n\r\n` },
  { shape: "a Host with a user", text: `${get}Host: b@a\r\n\r\n` },
  { shape: "a Host of two words", text: `${get}Host: a b\r\n\r\n` },
  { shape: "a target with its own host", text: "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n" },
  { shape: "two spaces", text: "GET  / HTTP/1.1\r\n\r\n" },
  { shape: "HTTP/0.9", text: "GET /\r\n\r\n" },
  { shape: "HTTP/1.2", text: "GET / HTTP/1.2\r\n\r\n" },
  { shape: "a version of its own", text: "GET / http/1.1\r\n\r\n" },
  { shape: "an empty line first", text: `\r\n${get}\r\n` },
  { shape: "a response", text: "HTTP/1.1 200 OK\r\n\r\n" },
  { shape: "a line feed in a chunk extension", text: `${get}Transfer-Encoding: chunked\r\n\r\n1;a\nx\r\n0\r\n\r\n` },
  { shape: "an extension without a size", text: `${get}Transfer-Encoding: chunked\r\n\r\n;a\r\nx\r\n0\r\n\r\n` },
  { shape: "white space after a chunk size", text: `${get}Transfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n` },
  { shape: "a chunk size with a prefix", text: `${get}Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n` },
  { shape: "a chunk size that overflows", text: `${get}Transfer-Encoding: chunked\r\n\r\n100000001\r\nx\r\n` },
  { shape: "a chunk longer than it says", text: `${get}Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n` },
  { shape: "a trailer", text: `${get}Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n\r\n` },
];

for (const { shape, text } of smuggled) {
  test(`${shape}: lost, and so is what follows`, () => {
    const reading = parser.read(Buffer.from(`${text}${get}Host: a.test\r\nX: ${marker}\r\n\r\n`, "latin1"));
    assert.equal(reading.state, "lost");
    assert.ok(reading.notes.length > 0 && reading.notes.every((note) => note.state === "lost"));
    assert.equal(parser.read(Buffer.from(`${get}Host: a.test\r\n\r\n`)).state, "lost");
    assert.equal(readStream(Buffer.from(`${text}${get}\r\n`, "latin1")).end, "lost");
  });
}

test("HTTP/2 is left to its own parser", () => {
  const reading = parser.read(Buffer.from("PRI "));
  assert.equal(reading.state, "http2");
  assert.deepEqual(reading.notes, []);
});

for (const [protocol, text] of [
  ["a tunnel", "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n"],
  ["an upgrade", `${get}Host: a.test\r\nUpgrade: websocket\r\n\r\n`],
] as const) {
  test(`${protocol} is not read on`, () => {
    const reading = parser.read(Buffer.from(`${text}X: ${marker}`));
    assert.equal(reading.state, "opaque");
    assert.deepEqual(reading.notes, []);
  });
}
