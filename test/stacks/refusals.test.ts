/*
 * The promise: what is not allowed or not understood leaves as the placeholder, the connection lives, and an audit
 * record says why. Needs root.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { ListenerPlan, ServedRequest } from "../../src/lab/server.ts";
import { count, timesIn } from "../support/requests.ts";
import { buildSpeak, host, makeSecret, otherHost, type SecretPlan, World } from "../support/world.ts";

const world = await World.create((certificates) => {
  const raw = (name: string, options: Partial<ListenerPlan> = {}): ListenerPlan => ({
    name,
    kind: "raw",
    certificate: certificates.good,
    ...options,
  });
  return [
    raw("raw"),
    raw("raw 1.2", { version: "TLSv1.2" }),
    raw("cbc", { version: "TLSv1.2", cipher: "ECDHE-ECDSA-AES256-SHA384" }),
    raw("ccm", { version: "TLSv1.3", cipher: "TLS_AES_128_CCM_SHA256" }),
    raw("untrusted", { certificate: certificates.untrusted }),
    raw("expired", { certificate: certificates.expired }),
    raw("wrong name", { certificate: certificates["wrong-name"] }),
    raw("hangs for the agent", { onlyAlpn: "speak" }),
  ];
});
after(() => world.close());
const speak = buildSpeak();
const value = makeSecret(51);

interface Refusal {
  readonly name: string;
  readonly reason: string;
  readonly secret?: Partial<SecretPlan>;
  readonly listener?: string;
  /** Options of `speak`; default: the allowed host's name. */
  readonly options?: readonly string[];
  /** What is said, after the request line and Host. */
  readonly say?: string;
  /** The whole script, instead. */
  readonly script?: readonly string[];
  /** False: the kernel could not read which secret it is about. */
  readonly known?: boolean;
  /** How often the secret itself arrives; 0 if nothing else is said. */
  readonly arrives?: number;
  readonly inert?: number;
}

const get = (more: string, name = host, path = "/a") =>
  `say GET ${path} HTTP/1.1\\r\\nHost: ${name}\\r\\n${more}\\r\\n`;
const post = (more: string, body: string) => `say POST /a HTTP/1.1\\r\\nHost: ${host}\\r\\n${more}\\r\\n${body}`;
const key = "Authorization: Bearer ${SECRET}\\r\\n";
const length = (bytes: number) => `Content-Length: ${bytes}\\r\\n`;

const refusals: readonly Refusal[] = [
  { name: "a host that the secret does not list", reason: "host-not-allowed", secret: { hosts: otherHost } },
  {
    name: "the Host of another tenant",
    reason: "host-not-allowed",
    script: [get(key, "tenant.kloak.test"), "send", "expect 1"],
  },
  { name: "a wildcard does not hold its own domain", reason: "host-not-allowed", secret: { hosts: `*.${host}` } },
  {
    name: "a wildcard holds one label",
    reason: "host-not-allowed",
    secret: { hosts: `*.${host}` },
    options: ["--sni", `a.b.${host}`],
    script: [get(key, `a.b.${host}`), "send", "expect 1"],
  },
  { name: "another port", reason: "port-not-allowed", secret: { ports: [1] } },
  { name: "another port, written with the host", reason: "port-not-allowed", secret: { hosts: `${host}:1` } },
  { name: "no name in the ClientHello", reason: "no-sni", options: ["--sni", "none"] },
  { name: "an encrypted name in the ClientHello", reason: "encrypted-sni", options: ["--sni", host, "--ech"] },
  { name: "a certificate from a strange root", reason: "attestation-failed", listener: "untrusted" },
  { name: "an expired certificate", reason: "attestation-failed", listener: "expired" },
  { name: "a certificate for another name", reason: "attestation-failed", listener: "wrong name" },
  {
    // Held back until the agent has given up twice, and then the placeholder goes.
    name: "a server that never answers the agent",
    reason: "attestation-failed",
    listener: "hangs for the agent",
    options: ["--sni", host, "--alpn", "speak"],
  },
  {
    name: "in the body",
    reason: "slot-not-allowed",
    script: [post(length(value.length), "${SECRET}"), "send"],
  },
  {
    name: "in a body that imitates a header block",
    reason: "slot-not-allowed",
    script: [
      post(length(value.length + 63 + host.length), `GET /b HTTP/1.1\\r\\nHost: ${host}\\r\\n${key}\\r\\n`),
      "send",
    ],
  },
  { name: "in the path", reason: "slot-not-allowed", script: [get("", host, "/${SECRET}"), "send", "expect 1"] },
  { name: "in the query", reason: "slot-not-allowed", script: [get("", host, "/a?key=${SECRET}"), "send", "expect 1"] },
  { name: "in Cookie", reason: "slot-not-allowed", say: "Cookie: a=${SECRET}\\r\\n" },
  { name: "in User-Agent", reason: "slot-not-allowed", say: "User-Agent: ${SECRET}\\r\\n" },
  { name: "in another header than the named", reason: "slot-not-allowed", secret: { in: "header:x-api-key" } },
  {
    name: "twice in a request",
    reason: "second-occurrence",
    say: `${key}X-Again: \${SECRET}\\r\\n`,
    arrives: 1,
    inert: 1,
  },
  {
    name: "cut in the middle by two records",
    reason: "split-over-records",
    script: [`say GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\n${key}\\r\\n`, `pieces ${45 + host.length + 20}`, "expect 1"],
  },
  {
    name: "lines that end in a bare line feed",
    reason: "unparsable-request",
    script: [`say GET /a HTTP/1.1\\nHost: ${host}\\nAuthorization: Bearer \${SECRET}\\n\\n`, "send"],
  },
  {
    name: "two lengths",
    reason: "unparsable-request",
    script: [post(`${length(3)}${length(4)}${key}`, "abcd"), "send"],
  },
  {
    name: "a length and chunks",
    reason: "unparsable-request",
    script: [post(`${length(5)}Transfer-Encoding: chunked\\r\\n${key}`, "0\\r\\n\\r\\n"), "send"],
  },
  { name: "a folded header", reason: "unparsable-request", say: "Authorization: Bearer\\r\\n ${SECRET}\\r\\n" },
  { name: "two Hosts", reason: "unparsable-request", say: `Host: ${host}\\r\\n${key}` },
  { name: "not HTTP", reason: "unparsable-request", script: ["say AUTH ${SECRET}\\r\\n\\r\\n", "send", "expect 1"] },
  { name: "a CBC suite", reason: "unknown-cipher", listener: "cbc" },
  {
    name: "a CCM suite",
    reason: "unknown-cipher",
    listener: "ccm",
    options: ["--sni", host, "--ciphers", "TLS_AES_128_CCM_SHA256"],
  },
  {
    name: "a record that is not in the page table when it is sealed",
    reason: "unreadable-memory",
    script: [get(""), "send", "expect 1", "unreadable all", get(key), "send", "expect 1"],
    known: false,
  },
  {
    name: "a record whose first page is not",
    reason: "unreadable-memory",
    script: [
      get(""),
      "send",
      "expect 1",
      "unreadable start",
      get(`${key}X-Long: ${"x".repeat(6000)}\\r\\n`),
      "send",
      "expect 1",
    ],
    known: false,
  },
  {
    name: "after a renegotiation",
    reason: "unproven-flow",
    listener: "raw 1.2",
    script: [get(""), "send", "expect 1", "renegotiate", get(key), "send", "expect 1"],
  },
];

for (const refusal of refusals) {
  test(`${refusal.reason}: ${refusal.name}`, async () => {
    const listener = refusal.listener ?? "raw";
    const { arrives = 0, inert = 1 } = refusal;
    const options = refusal.options ?? ["--sni", host];
    const command = [speak, ...options, world.namespace.ipv4.inside, String(world.server.port(listener))];
    const script = refusal.script ?? [get(refusal.say ?? key), "send", "expect 1"];
    const secrets = { SECRET: { value, hosts: host, ...refusal.secret } };
    const outcome = await world.kloak({ secrets, command, input: `${script.join("\n")}\n` });
    const { requests } = await world.server.take({ closed: listener });
    const text = textFrom(requests, listener);
    assert.deepEqual(
      { secret: timesIn(text, value), placeholder: timesIn(text, "kloak:"), status: outcome.status },
      { secret: arrives, placeholder: inert, status: 0 },
      outcome.stderr,
    );
    const records = outcome.audit.map((record) => `${record.outcome} ${record.reason ?? ""} ${record.secret}`);
    assert.deepEqual(count(records), {
      [`refused ${refusal.reason} ${refusal.known === false ? null : "SECRET"}`]: 1,
      ...(arrives > 0 ? { "substituted  SECRET": arrives } : {}),
    });
    assert.equal(timesIn(outcome.stderr, refusal.reason), 1, "kloak says it where the user sees it");
    for (const { reason, destination } of outcome.audit) {
      // These are known before the record has a place on the wire.
      if (["second-occurrence", "unknown-cipher", "unreadable-memory"].includes(reason ?? "")) continue;
      assert.equal(destination.address, world.namespace.ipv4.inside);
      assert.equal(destination.port, world.server.port(listener));
    }
  });
}

test("the placeholder of another run stays one", async () => {
  // The first run says its placeholder and stays; the second sends it.
  const first = world.start({
    secrets: { SECRET: { value, hosts: host } },
    command: ["sh", "-c", 'echo "$SECRET"; exec cat'],
    input: null,
  });
  const placeholder = await first.firstLine();
  const command = [speak, "--sni", host, world.namespace.ipv4.inside, String(world.server.port("raw"))];
  const second = await world.kloak({
    secrets: { OTHER: { value: makeSecret(20), hosts: host } },
    command: ["env", `SECRET=${placeholder}`, ...command],
    input: `${get(key)}\nsend\nexpect 1\n`,
  });
  first.child.stdin?.end();
  const { audit } = await first.ended;
  const { requests } = await world.server.take({ closed: "raw" });
  const text = textFrom(requests, "raw");
  assert.deepEqual(
    {
      secret: timesIn(text, value),
      placeholder: timesIn(text, placeholder),
      status: second.status,
      stderr: second.stderr,
    },
    { secret: 0, placeholder: 1, status: 0, stderr: "" },
  );
  // Neither run knows the other's placeholders, so to the second it is a text like any other.
  assert.deepEqual([...audit, ...second.audit], []);
});

test("no refusal for a client that sends no placeholder", async () => {
  const command = ["curl", "-sSf", "-o", "/dev/null", "--cacert", world.authority.caFile, world.url("1.3 aes-128-gcm")];
  const outcome = await world.kloak({ secrets: { SECRET: { value, hosts: host } }, command });
  await world.server.take();
  assert.deepEqual(
    { status: outcome.status, stderr: outcome.stderr, audit: outcome.audit },
    { status: 0, stderr: "", audit: [] },
  );
});

/** All that the client said on the listener. Connections on which nothing was said are the agent's own. */
function textFrom(requests: readonly ServedRequest[], listener: string): string {
  return requests.flatMap((request) => (request.listener === listener ? (request.body ?? "") : "")).join("");
}
