import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import fc from "fast-check";
import { flowSniNames } from "../../src/dataplane/types.gen.ts";
import type { Extension } from "./client-hello.ts";
import * as tls from "./client-hello.ts";
import type { ConnectionOptions } from "./lab.ts";
import { host, Lab, port, secret } from "./lab.ts";
import { mappedAddress } from "./packets.ts";
import * as rows from "./rows.ts";

const lab = new Lab({ attestAskNs: 0n });
beforeEach(() => lab.reset());
after(() => lab.kernel.close());

const edit = { secret, offset: 40, length: 30 };

interface Case {
  readonly extensions?: readonly Extension[] | undefined;
  readonly connection?: ConnectionOptions;
  readonly requestHost?: string;
  readonly hostAllowed?: boolean;
}

/** Sends one request with a placeholder: "patched", the reason why not, or "held". */
async function outcome(options: Case): Promise<string> {
  const extensions = "extensions" in options ? options.extensions : [tls.serverName(host)];
  const { connection, cipher } = lab.tls13({ ...options.connection, hello: tls.clientHello(extensions) });
  await lab.events();
  const patches = lab.kernel.table("patches").entries().length;
  const request = cipher.seal({
    edits: [{ ...edit, hostAllowed: options.hostAllowed ?? false }],
    host: options.requestHost ?? host,
  });
  const left = connection.send(request.sent);
  const events = (await lab.events()).filter(({ kind }) => kind !== "attest");
  if (!left) {
    assert.equal(events.length, 0);
    return "held";
  }
  assert.equal(events.length, 1);
  assert.equal(events[0]?.secret, secret);
  assert.deepEqual(events[0]?.address, mappedAddress(connection.destination));
  if (left.equals(request.patched)) {
    assert.equal(events[0]?.kind, "substituted");
    return "patched";
  }
  assert.deepEqual(left, request.sent, "all of the patch or nothing");
  assert.equal(events[0]?.kind, "refused");
  assert.equal(lab.kernel.table("patches").entries().length, patches, "a refused patch is forgotten");
  return events[0]?.reason ?? "";
}

const long = `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(63)}.${"d".repeat(61)}`;
const names: readonly (readonly [what: string, extensions: readonly Extension[] | undefined, expected: string])[] = [
  ["the allowed name", [tls.serverName(host)], "patched"],
  ["it in upper case", [tls.serverName("API.Example.COM")], "patched"],
  ["it with the root's dot", [tls.serverName(`${host}.`)], "patched"],
  ["it after other extensions", [tls.supportedVersions, tls.largeKeyShare, tls.serverName(host)], "patched"],
  ["it before other extensions", [tls.serverName(host), tls.largeKeyShare], "patched"],
  ["another name", [tls.serverName("evil.example.com")], "host-not-allowed"],
  ["its parent", [tls.serverName("example.com")], "host-not-allowed"],
  ["a name that starts with it", [tls.serverName(`${host}.evil.org`)], "host-not-allowed"],
  ["a name that ends with it", [tls.serverName(`x.${host}`)], "host-not-allowed"],
  ["two dots at its end", [tls.serverName(`${host}..`)], "no-sni"],
  ["a dot at its start", [tls.serverName(`.${host}`)], "no-sni"],
  ["an empty label", [tls.serverName("api..example.com")], "no-sni"],
  ["a NUL after it", [tls.serverName(`${host}\0`)], "no-sni"],
  ["a NUL within it", [tls.serverName(`${host}\0.evil.org`)], "no-sni"],
  ["a space", [tls.serverName(`${host} `)], "no-sni"],
  ["a byte over 127", [tls.serverName(Buffer.from([...Buffer.from(host), 0xe9]))], "no-sni"],
  ["a port", [tls.serverName(`${host}:443`)], "no-sni"],
  ["the longest name", [tls.serverName(long)], "host-not-allowed"],
  ["one byte more", [tls.serverName(`${long}e`)], "no-sni"],
  ["300 bytes", [tls.serverName("a.".repeat(150))], "no-sni"],
  ["an empty name", [tls.serverName("")], "no-sni"],
  ["only a dot", [tls.serverName(".")], "no-sni"],
  ["two names", [tls.serverName(host, "evil.example.com")], "no-sni"],
  ["the same name twice", [tls.serverName(host, host)], "no-sni"],
  ["two extensions", [tls.serverName(host), tls.serverName("evil.example.com")], "no-sni"],
  ["two extensions, the other first", [tls.serverName("evil.example.com"), tls.serverName(host)], "no-sni"],
  [
    "another type of name",
    [{ type: 0, data: Buffer.concat([tls.vector(2, Buffer.from([1]), tls.vector(2, Buffer.from(host)))]) }],
    "no-sni",
  ],
  [
    "a list shorter than its extension",
    [{ type: 0, data: Buffer.concat([tls.serverName(host).data, Buffer.alloc(1)]) }],
    "no-sni",
  ],
  ["an empty extension", [{ type: 0, data: Buffer.alloc(0) }], "no-sni"],
  ["no server name", [tls.supportedVersions], "no-sni"],
  ["an empty list of extensions", [], "no-sni"],
  ["no extensions", undefined, "no-sni"],
  ["ECH beside an allowed outer name", [tls.serverName(host), tls.encryptedHello], "encrypted-sni"],
  ["ECH beside another name", [tls.encryptedHello, tls.serverName("public.example.net")], "encrypted-sni"],
  ["ECH and no name", [tls.encryptedHello], "encrypted-sni"],
];
for (const [what, extensions, expected] of names) {
  test(`SNI: ${what}: ${expected}`, async () => {
    assert.equal(await outcome({ extensions }), expected);
  });
}

test("a bent ClientHello names whom a strict parser says it names", async () => {
  const hello = tls.clientHello([tls.supportedVersions, tls.serverName(host), tls.encryptedHello]);
  await fc.assert(
    fc.asyncProperty(
      fc.nat(hello.length - 5),
      fc.integer({ min: 1, max: 255 }),
      fc.nat(3),
      async (place, change, more) => {
        const bent = Buffer.from(hello);
        /* The message's own length stays: its end would only move. */
        for (const at of [4 + place, 4 + ((place * 7 + more) % (hello.length - 4))].slice(0, 1 + (more % 2))) {
          bent[at] = ((bent[at] ?? 0) + change) & 0xff;
        }
        const connection = lab.connect();
        connection.send(tls.record(22, bent));
        const flow = lab.kernel.flow(connection);
        const { sni, name = "" } = tls.readServerName(bent);
        assert.equal(flowSniNames[flow.sni], sni);
        assert.equal(flow.host, sni === "name" ? lab.kernel.hash(name) : sni === "encrypted" ? flow.host : 0n);
      },
    ),
    { numRuns: 1500 },
  );
});

test("a ClientHello may be cut anywhere: between segments, between records", async () => {
  const hello = tls.clientHello([tls.supportedVersions, tls.serverName(host), tls.largeKeyShare]);
  for (let cut = 1; cut < 150; cut++) {
    for (const stream of [
      tls.record(22, hello),
      Buffer.concat([tls.record(22, hello.subarray(0, cut)), tls.record(22, hello.subarray(cut))]),
    ]) {
      const connection = lab.connect();
      connection.send(stream.subarray(0, cut));
      connection.send(stream.subarray(cut));
      connection.send(Buffer.concat([tls.changeCipherSpec, lab.cipher().seal({ type: 22 }).sent]));
      const request = lab.cipher().seal({ edits: [edit], host });
      assert.deepEqual(connection.send(request.sent), request.patched, `cut at ${cut}`);
    }
  }
});

test("a ClientHello may come byte by byte", () => {
  const connection = lab.connect();
  for (const byte of tls.record(22, tls.clientHello([tls.serverName(host)]))) connection.send(Buffer.from([byte]));
  connection.send(lab.cipher().seal({ type: 22 }).sent);
  const request = lab.cipher().seal({ edits: [edit], host });
  assert.deepEqual(connection.send(request.sent), request.patched);
  assert.equal(lab.kernel.table("hellos").entries().length, 0);
});

const seconds: readonly (readonly [string, readonly Extension[], string])[] = [
  ["the same name", [tls.serverName(host), tls.largeKeyShare], "patched"],
  ["another allowed name", [tls.serverName("other.example.com")], "unproven-flow"],
  ["no name", [], "unproven-flow"],
  ["ECH", [tls.serverName(host), tls.encryptedHello], "unproven-flow"],
];
for (const between of ["with", "without"]) {
  for (const [what, extensions, expected] of seconds) {
    test(`a second ClientHello, ${between} ChangeCipherSpec before it, with ${what}: ${expected}`, async () => {
      lab.allow("other.example.com");
      lab.attest("192.0.2.1", { name: "other.example.com" });
      const connection = lab.connect();
      connection.send(tls.record(22, tls.clientHello([tls.serverName(host)])));
      if (between === "with") connection.send(tls.changeCipherSpec);
      connection.send(tls.record(22, tls.clientHello(extensions)));
      connection.send(lab.cipher().seal({ type: 22 }).sent);
      await lab.events();
      const request = lab.cipher().seal({ edits: [{ ...edit, hostAllowed: true }], host });
      const left = connection.send(request.sent);
      assert.deepEqual(left, expected === "patched" ? request.patched : request.sent);
      assert.equal((await lab.events())[0]?.reason, expected === "patched" ? "none" : expected);
    });
  }
}

test("SNI in the second ClientHello alone names nobody", async () => {
  const connection = lab.connect();
  connection.send(tls.record(22, tls.clientHello([tls.supportedVersions])));
  connection.send(tls.record(22, tls.clientHello([tls.serverName(host)])));
  connection.send(lab.cipher().seal({ type: 22 }).sent);
  const request = lab.cipher().seal({ edits: [edit], host });
  assert.deepEqual(connection.send(request.sent), request.sent);
});

const wildcards: readonly (readonly [name: string, expected: string])[] = [
  ["a.wild.example", "patched"],
  ["A.Wild.Example.", "patched"],
  ["wild.example", "host-not-allowed"],
  ["a.b.wild.example", "host-not-allowed"],
  ["a.wild.example.evil.org", "host-not-allowed"],
  ["awild.example", "host-not-allowed"],
  [".wild.example", "no-sni"],
];
for (const [name, expected] of wildcards) {
  test(`*.wild.example and ${name}: ${expected}`, async () => {
    lab.allow("wild.example", { kind: rows.hostKind.wildcard });
    lab.attest("192.0.2.1", { name: name.toLowerCase().replace(/\.$/, "") });
    assert.equal(await outcome({ extensions: [tls.serverName(name)], hostAllowed: true }), expected);
  });
}

test("the request's Host must be the SNI's or another that the secret allows", async () => {
  assert.equal(await outcome({ requestHost: "tenant.example.net" }), "host-not-allowed");
  assert.equal(await outcome({ requestHost: "tenant.example.net", hostAllowed: true }), "patched");
  assert.equal(await outcome({ requestHost: host }), "patched");
});

test("ports", async () => {
  lab.allow(host, { ports: [443, 8443] });
  assert.equal(await outcome({}), "patched");
  assert.equal(await outcome({ connection: { destinationPort: 444 } }), "port-not-allowed");
  lab.attest("192.0.2.1", { port: 8443 });
  assert.equal(await outcome({ connection: { destinationPort: 8443 } }), "patched");
});

test("an exact rule that excludes the port leaves the wildcard's to decide", async () => {
  lab.allow(host, { ports: [1] });
  lab.allow("example.com", { kind: rows.hostKind.wildcard, ports: [port] });
  assert.equal(await outcome({}), "patched");
});

test("attestation: refused, expired, of another address, another port, another mode", async () => {
  lab.attest("192.0.2.1", { granted: false });
  assert.equal(await outcome({}), "attestation-failed");
  const attestations = lab.kernel.table("attestations");
  attestations.clear();
  assert.equal(await outcome({}), "held");
  lab.attest("192.0.2.2");
  assert.equal(await outcome({}), "held");
  lab.attest("192.0.2.1", { port: 8443 });
  assert.equal(await outcome({}), "held");
  lab.attest("192.0.2.1", { mode: rows.attestMode.dns });
  assert.equal(await outcome({}), "held");
  lab.attest("192.0.2.1", { name: "other.example.com" });
  assert.equal(await outcome({}), "held");
  const key = rows.attestationKey(mappedAddress("192.0.2.1"), lab.kernel.hash(host), port, rows.attestMode.certificate);
  attestations.set(key, rows.attestation(1n, true));
  assert.equal(await outcome({}), "held");
  lab.attest("192.0.2.1");
  assert.equal(await outcome({}), "patched");
});

test("a rule may ask for attestation by DNS alone", async () => {
  lab.allow(host, { attest: rows.attestMode.dns });
  assert.equal(await outcome({}), "held");
  lab.attest("192.0.2.1", { mode: rows.attestMode.dns });
  assert.equal(await outcome({}), "patched");
});

test("attestation `none` is for addresses, not for names", async () => {
  lab.allow(host, { attest: rows.attestMode.none });
  lab.kernel.table("attestations").clear();
  assert.equal(await outcome({}), "held");
});

test("the agent is asked when a ClientHello names an allowed host, before any request", async () => {
  lab.kernel.table("attestations").clear();
  const { connection } = lab.tls13();
  const [event, ...more] = await lab.events();
  assert.equal(event?.kind, "attest");
  assert.equal(event?.host, host);
  assert.equal(event?.port, port);
  assert.deepEqual(event?.address, mappedAddress(connection.destination));
  assert.equal(more.length, 0);
  lab.tls13({ hello: tls.clientHello([tls.serverName("nobody.example.org")]) });
  assert.equal((await lab.events()).length, 0);
});

test("a held request goes out patched as soon as the verdict is there", async () => {
  lab.kernel.table("attestations").clear();
  for (const start of [() => lab.tls13(), () => lab.tls12()]) {
    const { connection, cipher } = start();
    const before = connection.sent;
    const one = cipher.seal({ length: 50 });
    const two = cipher.seal({ edits: [edit], host });
    const three = cipher.seal({ length: 33 });
    const all = Buffer.concat([one.sent, two.sent, three.sent]);
    const patched = Buffer.concat([one.sent, two.patched, three.sent]);
    assert.equal(connection.segment(before, all), undefined);
    assert.equal(connection.segment(before, all), undefined);
    assert.deepEqual(connection.segment(before, one.sent), one.sent, "what stands before it may go");
    assert.equal(connection.segment(before + 20, all.subarray(20)), undefined);
    lab.attest("192.0.2.1");
    assert.deepEqual(connection.segment(before, all), patched);
    assert.deepEqual(connection.segment(before + 60, all.subarray(60)), patched.subarray(60));
    const next = cipher.seal({ edits: [edit], host });
    assert.deepEqual(connection.segment(before + all.length, next.sent), next.patched);
    lab.kernel.table("attestations").clear();
  }
});

test("the first record of a connection may be the one that is held", () => {
  lab.kernel.table("attestations").clear();
  for (let cut = 0; cut < 45; cut += 4) {
    const { connection, cipher } = lab.tls13();
    const before = connection.sent;
    const request = cipher.seal({ edits: [edit], host });
    if (cut > 0) assert.ok(connection.segment(before, request.sent.subarray(0, cut)) !== undefined || cut >= 21);
    assert.equal(connection.segment(before + cut, request.sent.subarray(cut)), undefined);
    lab.attest("192.0.2.1");
    assert.deepEqual(connection.segment(before, request.sent), request.patched, `cut at ${cut}`);
    lab.kernel.table("attestations").clear();
  }
});

const networks: readonly (readonly [string, string, number, number, readonly number[], string])[] = [
  ["192.0.2.1", "192.0.2.1", 128, rows.attestMode.none, [], "patched"],
  ["192.0.2.1", "192.0.2.0", 120, rows.attestMode.none, [], "patched"],
  ["192.0.2.1", "192.0.3.0", 120, rows.attestMode.none, [], "no-sni"],
  ["192.0.2.1", "192.0.2.0", 120, rows.attestMode.none, [8443], "port-not-allowed"],
  ["192.0.2.1", "192.0.2.0", 120, rows.attestMode.certificate, [], "held"],
  ["2001:db8::1", "2001:db8::", 32, rows.attestMode.none, [], "patched"],
  ["2001:db8::1", "2001:db9::", 32, rows.attestMode.none, [], "no-sni"],
];
for (const [destination, network, bits, attest, ports, expected] of networks) {
  test(`no SNI, ${destination}, allowed ${network}/${bits} (${attest}, ports ${ports}): ${expected}`, async () => {
    lab.kernel
      .table("networks")
      .set(rows.networkKey(secret, mappedAddress(network), bits), rows.hostRule(ports, attest));
    const options = { extensions: [], connection: { destination } };
    assert.equal(await outcome({ ...options, hostAllowed: true }), expected);
    if (expected === "patched") {
      assert.equal(await outcome({ ...options, hostAllowed: false }), "host-not-allowed");
      assert.equal(await outcome({ connection: { destination } }), "patched", "the name's own rule");
      const other = [tls.serverName("other.example.org")];
      assert.equal(await outcome({ extensions: other, connection: { destination } }), "host-not-allowed");
    }
  });
}

test("an IP rule with attestation by certificate has the name 0", async () => {
  const rule = rows.hostRule([], rows.attestMode.certificate);
  lab.kernel.table("networks").set(rows.networkKey(secret, mappedAddress("192.0.2.1"), 128), rule);
  lab.attest("192.0.2.1", { name: "" });
  assert.equal(await outcome({ extensions: [], hostAllowed: true }), "patched");
});

test("another secret's rules do not count", async () => {
  lab.kernel.table("hosts").clear();
  lab.allow(host, { secret: secret + 1 });
  assert.equal(await outcome({}), "host-not-allowed");
});
