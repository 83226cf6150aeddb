/*
 * THREATS B7, D6, E1, E2 over HTTP/2: requests that two servers could read in two ways, and a secret that the server keeps
 * in its header table and is then told, by an index of one byte, to send itself again for another tenant. Needs root.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { type Field, frame, integer, preface } from "../kernel/h2-writer.ts";
import { count, header, timesIn } from "../support/requests.ts";
import { host, makeSecret, otherHost, World } from "../support/world.ts";
import { program, texts } from "./attack.ts";

const world = await World.create(({ good }) => [
  { name: "http2", kind: "http2", certificate: good },
  { name: "raw", kind: "raw", certificate: good },
]);
after(() => world.close());

const value = makeSecret(51);
const placeholder = "{}";
/** Hexadecimal, but for the placeholder: lengths count it as its 51 bytes. */
type Text = string;
const bytesOf = (text: Text) =>
  (text.length - timesIn(text, placeholder) * 2) / 2 + timesIn(text, placeholder) * value.length;
const hex = (text: string): Text =>
  text
    .split(placeholder)
    .map((part) => Buffer.from(part, "latin1").toString("hex"))
    .join(placeholder);
const literal = (text: string): Text => integer(0, 0x7f, bytesOf(hex(text))).toString("hex") + hex(text);
/** Never indexed, or with a new entry in the table. */
const field = ([name, text]: Field, inserted = false): Text => (inserted ? "40" : "10") + literal(name) + literal(text);
const index = (entry: number): Text => integer(0x80, 0x7f, entry).toString("hex");
const wrap = (type: number, flags: number, stream: number, payload: Text): Text => {
  const head = frame(type, flags, stream, Buffer.alloc(bytesOf(payload)));
  return head.toString("hex", 0, 9) + payload;
};
const get = (authority: string): Field[] => [
  [":method", "GET"],
  [":scheme", "https"],
  [":authority", authority],
  [":path", "/a"],
];
const block = (...fields: readonly (Field | Text)[]): Text =>
  fields.map((each) => (typeof each === "string" ? each : field(each))).join("");
const request = (stream: number, ...fields: readonly (Field | Text)[]): Text => wrap(1, 5, stream, block(...fields));
const begin = preface.toString("hex") + wrap(4, 0, 0, "");
const key: Field = ["authorization", `Bearer ${placeholder}`];

async function speak(listener: "http2" | "raw", lines: readonly string[]) {
  const ca = world.authority.caFile;
  const address = world.namespace.ipv4.inside;
  const port = String(world.server.port(listener));
  const alpn = listener === "raw" ? "http/1.1" : "h2";
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: host } },
    command: [process.execPath, program("h2.mjs"), ca, host, address, port, alpn],
    input: `${lines.join("\n")}\n`,
  });
  const { requests } = await world.server.take(listener === "raw" ? { closed: "raw" } : {});
  const records = count(outcome.audit.map((record) => `${record.outcome} ${record.reason ?? ""}`.trim()));
  return { outcome, requests, records };
}

interface Shape {
  readonly name: string;
  readonly bytes: Text;
  /** Default: refused as unparsable, and nothing arrives. */
  readonly arrives?: number;
  readonly inert?: number;
  readonly records?: Readonly<Record<string, number>>;
}
const refused = (reason: string) => ({ [`refused ${reason}`]: 1 });

const shapes: readonly Shape[] = [
  {
    name: "an honest request",
    bytes: request(1, ...get(host), key),
    arrives: 1,
    inert: 0,
    records: { substituted: 1 },
  },
  {
    name: "padding and priority around it",
    bytes: wrap(1, 5 | 8 | 32, 1, `030000000010${block(...get(host), key)}000000`),
    arrives: 1,
    inert: 0,
    records: { substituted: 1 },
  },
  {
    name: "CONTINUATION after it",
    bytes: wrap(1, 1, 1, block(...get(host), key)) + wrap(9, 0, 1, "") + wrap(9, 4, 1, block(["x", "y"])),
    arrives: 1,
    inert: 0,
    records: { substituted: 1 },
  },
  {
    name: "CONTINUATION within it",
    bytes: (() => {
      const whole = block(...get(host), ["authorization", `Bearer ${placeholder}`]);
      const cut = whole.indexOf(placeholder);
      return wrap(1, 1, 1, whole.slice(0, cut - 4)) + wrap(9, 4, 1, whole.slice(cut - 4));
    })(),
    arrives: 1,
    inert: 0,
    records: { substituted: 1 },
  },
  {
    name: "another tenant's :authority",
    bytes: request(1, ...get(otherHost), key),
    records: refused("host-not-allowed"),
  },
  { name: "no :authority", bytes: request(1, [":method", "GET"], key), records: refused("host-not-allowed") },
  { name: "two :authority", bytes: request(1, ...get(host), [":authority", otherHost], key) },
  { name: "host that differs", bytes: request(1, ...get(host), ["host", otherHost], key) },
  { name: "host that differs, after it", bytes: request(1, ...get(host), key, ["host", otherHost]) },
  { name: "a pseudo-header field after it", bytes: request(1, ...get(host).slice(0, 2), key, [":authority", host]) },
  { name: "capitals in a name", bytes: request(1, ...get(host), ["Authorization", placeholder]) },
  { name: "a line feed in a value", bytes: request(1, ...get(host), ["x", `a\r\nhost: ${otherHost}`], key) },
  { name: "a path with a host of its own", bytes: request(1, ...get(host).slice(0, 3), [":path", "http://b/"], key) },
  { name: "Transfer-Encoding", bytes: request(1, ...get(host), ["transfer-encoding", "chunked"], key) },
  { name: "a table size in the middle", bytes: request(1, ...get(host), "20", key), inert: 1 },
  {
    name: "in the path",
    bytes: request(1, ...get(host).slice(0, 3), [":path", `/${placeholder}`]),
    records: refused("slot-not-allowed"),
  },
  {
    name: "in the query",
    bytes: request(1, ...get(host).slice(0, 3), [":path", `/?a=${placeholder}`]),
    records: refused("slot-not-allowed"),
  },
  {
    name: "in a cookie",
    bytes: request(1, ...get(host), ["cookie", placeholder]),
    records: refused("slot-not-allowed"),
  },
  {
    name: "in DATA that imitates a request",
    bytes: wrap(1, 4, 1, block(...get(host))) + wrap(0, 1, 1, request(3, ...get(host), key)),
    records: refused("slot-not-allowed"),
  },
  { name: "in trailers", bytes: wrap(1, 4, 1, block(...get(host))) + request(1, key) },
  {
    name: "twice in a request",
    bytes: request(1, ...get(host), key, ["x-again", placeholder]),
    arrives: 1,
    inert: 1,
    records: { substituted: 1, "refused second-occurrence": 1 },
  },
  {
    name: "once more by its index in the same request",
    bytes: request(1, ...get(host), field(["x-key", placeholder], true), index(62)),
    records: refused("second-occurrence"),
  },
  {
    name: "a string that ends within it",
    bytes: (() => {
      const length = (value.length - 8).toString(16).padStart(2, "0");
      return request(1, ...get(host), `10${literal("x-key")}${length}${placeholder}`);
    })(),
    inert: 1,
  },
];

for (const { name, bytes, arrives = 0, inert = 1, records: wanted = refused("unparsable-request") } of shapes) {
  test(`${name}: ${Object.keys(wanted).join(", ")}`, async () => {
    const { outcome, requests, records } = await speak("raw", [`0:${begin}${bytes}`]);
    const text = texts(requests, "raw").join("");
    assert.deepEqual(
      { secret: timesIn(text, value), placeholder: timesIn(text, "kloak:"), records, status: outcome.status },
      { secret: arrives, placeholder: inert, records: wanted, status: 0 },
      outcome.stderr,
    );
    for (const record of outcome.audit) assert.equal(record.protocol, "http/2");
  });
}

const kept = field(["x-key", placeholder], true);

test("what the server keeps is sent again to the same host", async () => {
  const again = (stream: number) => `${stream}:${request(stream, ...get(host), index(62))}`;
  const { outcome, requests, records } = await speak("http2", [
    `1:${begin}${request(1, ...get(host), kept)}`,
    again(3),
    again(5),
  ]);
  assert.equal(outcome.stdout, "1 answered\n3 answered\n5 answered\n");
  assert.deepEqual(
    requests.map((each) => header(each, "x-key")),
    [value, value, value],
  );
  assert.deepEqual(records, { substituted: 1 });
});

for (const [what, fields] of [
  ["to another tenant", [...get(otherHost), index(62)]],
  ["to two hosts", [...get(host), ["host", otherHost] as const, index(62)]],
  ["to nobody", [[":method", "GET"] as const, [":path", "/"] as const, [":scheme", "https"] as const, index(62)]],
  ["twice", [...get(host), index(62), index(62)]],
  ["in a block that is lost", [...get(host), "20", index(62)]],
] as const) {
  test(`what the server keeps never leaves again ${what}`, async () => {
    const { outcome, requests, records } = await speak("http2", [
      `1:${begin}${request(1, ...get(host), kept)}`,
      `3:${request(3, ...(fields as readonly (Field | Text)[]))}`,
      `5:${request(5, ...get(host))}`,
    ]);
    assert.equal(outcome.stdout, "1 answered\n3 nothing\n5 nothing\n");
    assert.deepEqual(
      requests.map((each) => header(each, "x-key")),
      [value],
    );
    assert.equal(records.substituted, 1);
    assert.ok((records["refused unproven-flow"] ?? 0) >= 1, "the connection that has been closed is named");
  });
}
