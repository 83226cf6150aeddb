/*
 * THREATS D12, D13, D15, F5: what the server reads is not what the wire side has followed. Bytes that leave by a way that the one
 * knows and the other does not, or that arrive and are not read, would turn an honest request into another's body. Needs
 * root.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { timesIn } from "../support/requests.ts";
import { host, makeSecret, World } from "../support/world.ts";
import { type Connection, Lab, host as wireHost } from "../wire/lab.ts";
import { frame, internetChecksum, type Wrapping } from "../wire/packets.ts";
import { audited, buildProgram, texts } from "./attack.ts";

const world = await World.create(({ good }) => [
  { name: "raw", kind: "raw", certificate: good, version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256" },
]);
after(() => world.close());
const forger = buildProgram("forger");
const valueLength = 51;

const line = (text: string) => text.replaceAll("\r\n", "\\r\\n");
const request = (first: string, more = "") => line(`${first} HTTP/1.1\r\nHost: ${host}\r\n${more}\r\n`);
const honest = request("GET /a", "Authorization: Bearer ${SECRET}\r\n");
const filled = (first: string, more = "") => {
  const bare = request(first, `${more}X-Fill: \r\n`).replaceAll("\\r\\n", "\r\n").length;
  return request(first, `${more}X-Fill: ${"z".repeat(200 - bare)}\r\n`);
};
const post = filled("POST /collect", "Content-Length: 500\r\n");

interface Trick {
  readonly name: string;
  readonly script: readonly string[];
  /** Port to connect from; any other if there is none. */
  readonly port?: number;
  /** That the server has read what nobody heard: the attack has come through so far, and only the secret stays away. */
  readonly arrives: boolean;
}

/** The socket's own record goes no further than the host; another leaves under its sequence numbers. */
const instead = (how: string) => ["ttl 1", `both ${filled("GET /b")}`, `instead ${how} ${post}`, "ttl 64"];

const tricks: readonly Trick[] = [
  { name: "in a frame without a tag", script: instead("tags 0"), arrives: true },
  { name: "in a frame with two VLAN tags", script: instead("tags 2"), arrives: true },
  { name: "in a frame with three VLAN tags, which Linux takes off", script: instead("tags 4"), arrives: false },
  { name: "from a raw socket whose protocol is the port", script: instead("raw 0"), port: 6, arrives: true },
  {
    name: "in a heard record from which urgent bytes are taken out",
    script: [`both ${request("POST /b", "Content-Length: 5874\r\n")}`, `urgent ${line("POST /collect HTTP/1.1\r\n")}`],
    arrives: true,
  },
];

for (const { name, script, port, arrives } of tricks) {
  test(`D12: an unheard record ${name}`, async () => {
    const value = makeSecret(valueLength);
    const file = join(world.directory, "trick");
    writeFileSync(file, `${[...script, `both ${honest}`].join("\n")}\n`);
    const { ipv4 } = world.namespace;
    const outcome = await world.kloak({
      secrets: { SECRET: { value, hosts: host } },
      command: ["sh", "-c", `exec "$@" < ${file}`, "sh", forger, host, ipv4.inside, String(world.server.port("raw"))],
      env: port === undefined ? {} : { FORGER_PORT: String(port) },
      options: ["--user", "root", "--quiet"],
    });
    const { requests } = await world.server.take({ closed: "raw" });
    const text = texts(requests, "raw").join("");
    const audit = audited(outcome.audit);
    assert.deepEqual({ stderr: outcome.stderr, status: outcome.status }, { stderr: "", status: 0 });
    assert.equal(text.includes("/collect"), arrives, text.slice(0, 400));
    // Without the unheard record all is in order, and the request as good as any.
    assert.deepEqual(
      { secret: timesIn(text, value), placeholder: timesIn(text, "kloak:") },
      { secret: arrives ? 0 : 1, placeholder: arrives ? 1 : 0 },
      JSON.stringify(audit),
    );
    assert.deepEqual(audit, arrives ? { "refused unproven-flow SECRET": 1 } : { "substituted SECRET": 1 });
  });
}

const lab = new Lab();
after(() => lab.kernel.close());
beforeEach(() => lab.reset());
const edit = { secret: 11, offset: 40, length: 30 };
const passes = (connection: Connection, wrapping: Wrapping) =>
  lab.kernel.run(
    "wire_egress",
    frame({ ...connection, sequence: connection.first + connection.sent, payload: Buffer.from("hidden") }, wrapping),
  ).pass;
const option = { type: 60, body: Buffer.from([0, 1, 4, 0, 0, 0, 0]) };

test("F5: a segment behind more tags or extension headers than we read does not leave", () => {
  const { connection } = lab.tls13();
  const six = lab.tls13({ destination: "2001:db8::1" }).connection;
  const tags = Array.from({ length: 8 }, (_, count) =>
    passes(connection, { vlan: Array.from({ length: count }, () => 0x8100) }),
  );
  const headers = Array.from({ length: 12 }, (_, count) =>
    passes(six, { extensions: Array.from({ length: count }, () => option) }),
  );
  assert.deepEqual(
    tags,
    tags.map((_, count) => count <= 2),
  );
  assert.deepEqual(
    headers,
    headers.map((_, count) => count < 6),
  );
});

test("F5: a first fragment that ends before its TCP header does not leave", () => {
  const { connection } = lab.tls13({ destination: "2001:db8::1" });
  const whole = frame(
    { ...connection, sequence: connection.first + connection.sent, payload: Buffer.from("hidden") },
    { extensions: [{ type: 44, body: Buffer.from([0, 0, 1, 0, 0, 0, 9]) }, option] },
  );
  const cut = Buffer.from(whole.subarray(0, 14 + 40 + 8));
  cut.writeUInt16BE(8, 14 + 4);
  assert.equal(lab.kernel.run("wire_egress", cut).pass, false);
});

/** An IPv4 packet with this protocol. */
function ipv4(protocol: number, body: Buffer): Buffer {
  const header = Buffer.from("45000000000040004000000cc633640ac0000209", "hex").subarray(0, 20);
  header.writeUInt16BE(20 + body.length, 2);
  header[8] = 64;
  header[9] = protocol;
  header.writeUInt16BE(
    internetChecksum(Buffer.concat([header.subarray(0, 10), Buffer.alloc(2), header.subarray(12)])),
    10,
  );
  return Buffer.concat([Buffer.from("020202020202040404040404", "hex"), Buffer.from([8, 0]), header, body]);
}

const udp = (port: number, body: Buffer) => {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(40000, 0);
  header.writeUInt16BE(port, 2);
  header.writeUInt16BE(8 + body.length, 4);
  return Buffer.concat([header, body]);
};
const tunnels: Readonly<Record<string, (inner: Buffer) => Buffer>> = {
  "IP in IP": (inner) => ipv4(4, inner.subarray(14)),
  GRE: (inner) => ipv4(47, Buffer.concat([Buffer.from([0, 0, 8, 0]), inner.subarray(14)])),
  VXLAN: (inner) => ipv4(17, udp(4789, Buffer.concat([Buffer.from([8, 0, 0, 0, 0, 0, 7, 0]), inner]))),
  "UDP, as WireGuard or QUIC would": (inner) => ipv4(17, udp(51820, inner.subarray(14))),
  "another EtherType": (inner) => Buffer.concat([inner.subarray(0, 12), Buffer.from([0x88, 0x64]), inner.subarray(14)]),
};
for (const [name, wrap] of Object.entries(tunnels)) {
  test(`D15: a record that could be patched, in ${name}`, () => {
    const { connection, cipher } = lab.tls13();
    const record = cipher.seal({ edits: [edit], host: wireHost });
    const bare = frame({ ...connection, sequence: connection.first + connection.sent, payload: record.sent });
    const { pass, packet } = lab.kernel.run("wire_egress", wrap(bare));
    assert.ok(pass);
    assert.deepEqual(packet, wrap(bare), "it leaves as it came");
    // The same bytes as a segment of their connection are patched.
    assert.deepEqual(connection.send(record.sent), record.patched);
  });
}

test("D13: a connection that the peer has not begun anew takes no substitution", async () => {
  const before = lab.tls13();
  before.connection.send(before.cipher.seal().sent);
  const { sourcePort } = before.connection;
  // A reset, and then a SYN, whose TTL ends on this host: to the peer the old connection lives on.
  before.connection.segment(before.connection.sent, new Uint8Array(), ["rst"]);
  const stale = lab.tls13({ sourcePort, answered: false });
  stale.connection.acknowledge(0); // RFC 5961 4: to a SYN within a connection the answer is an acknowledgement
  const record = stale.cipher.seal({ edits: [edit], host: wireHost });
  assert.deepEqual(stale.connection.send(record.sent), record.sent);
  assert.deepEqual(
    (await lab.events()).map(({ reason }) => reason),
    ["unproven-flow"],
  );
  const fresh = lab.tls13({ sourcePort });
  const next = fresh.cipher.seal({ edits: [edit], host: wireHost });
  assert.deepEqual(fresh.connection.send(next.sent), next.patched);
});
