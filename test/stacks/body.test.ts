/*
 * The promise: a secret that may stand in a body arrives there as itself, wherever the body is cut, and nothing else of the
 * body changes. Where a secret may not stand in it, or nobody can say where it belongs, the placeholder stays. Needs root.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import type { ServedRequest } from "../../src/lab/server.ts";
import { suites } from "../../src/lab/suites.ts";
import { count, header, timesIn } from "../support/requests.ts";
import { buildSpeak, host, makeSecret, otherHost, type SecretPlan, World } from "../support/world.ts";

const world = await World.create(({ good }) => [
  { name: "http/1.1", certificate: good },
  { name: "http/2", kind: "http2", certificate: good },
  { name: "raw", kind: "raw", certificate: good },
]);
after(() => world.close());
const speak = buildSpeak();

const value = makeSecret(51);
/** What a JSON body around the placeholder takes. */
const json = (text: string): string => `{"model":"m","key":"${text}","end":true}`;
const jsonBytes = json(value).length;

const start = (more: string): string => `say POST /a HTTP/1.1\\r\\nHost: ${host}\\r\\n${more}\\r\\n`;
const length = (bytes: number): string => `Content-Length: ${bytes}\\r\\n`;
const chunked = "Transfer-Encoding: chunked\\r\\n";
const chunk = (text: string, bytes: number): string => `${bytes.toString(16)}\\r\\n${text}\\r\\n`;
const said = json("${SECRET}").replaceAll('"', '\\"');
const headerBytes = start(length(jsonBytes)).slice("say ".length).replaceAll("\\r\\n", "--").length;
const plain = `say GET /b HTTP/1.1\\r\\nHost: ${host}\\r\\n\\r\\n`;

interface BodyCase {
  readonly name: string;
  readonly script: readonly string[];
  /** In the bodies that the server reads on each connection. */
  readonly arrives: number;
  readonly inert?: number;
  /** Of each connection, besides a substitution for each that arrives. */
  readonly reasons?: readonly string[];
  readonly secret?: Partial<SecretPlan>;
}

const cases: readonly BodyCase[] = [
  {
    name: "in the record of its header block",
    script: [start(length(jsonBytes)) + said, "send", "expect 1"],
    arrives: 1,
  },
  {
    name: "in a record of its own",
    script: [start(length(jsonBytes)), "send", `say ${said}`, "send", "expect 1"],
    arrives: 1,
  },
  {
    name: "far behind its header block, in the third record",
    script: [start(length(40_000 + jsonBytes)), "send", "fill 40000", `say ${said}`, "send", "expect 1"],
    arrives: 1,
  },
  {
    name: "with another request behind it in the record, and before it",
    script: [
      `${plain}${start(length(jsonBytes)).slice(4)}${said}${plain.slice(4)}`,
      "send",
      "expect 3",
      `${start(length(jsonBytes))}${said}`,
      "send",
      "expect 1",
    ],
    arrives: 2,
  },
  {
    name: "in chunks",
    script: [
      `${start(chunked)}${chunk("0123456789", 10)}${chunk(said, jsonBytes)}${chunk("x", 1)}0\\r\\n\\r\\n`,
      "send",
      "expect 1",
    ],
    arrives: 1,
  },
  {
    name: "the second time in a request: one of them",
    script: [start(length(2 * jsonBytes)) + said + said, "send", "expect 1"],
    arrives: 1,
    inert: 1,
    reasons: ["second-occurrence"],
  },
  {
    name: "cut by two records",
    script: [
      start(length(jsonBytes)) + said,
      `pieces ${headerBytes + json("").indexOf('""') + 20}`,
      "send",
      "expect 1",
    ],
    arrives: 0,
    inert: 1,
    reasons: ["split-over-records"],
  },
  {
    name: "of a secret for headers only, beside one for bodies",
    script: [start(length(jsonBytes)) + said.replace("SECRET", "OTHER"), "send", "expect 1"],
    arrives: 0,
    inert: 1,
    reasons: ["slot-not-allowed"],
  },
  {
    name: "to a host that the secret does not list",
    script: [start(length(jsonBytes)) + said, "send", "expect 1"],
    secret: { hosts: otherHost },
    arrives: 0,
    inert: 1,
    reasons: ["host-not-allowed"],
  },
];

for (const one of cases) {
  test(one.name, async () => {
    const file = join(world.directory, "script");
    writeFileSync(file, `${one.script.join("\n")}\n`);
    const loop =
      'script=$1; shift; for port; do "$SPEAK" --sni "$HOST" --ca "$CA" "$ADDRESS" "$port" <"$script" || exit; done';
    const outcome = await world.kloak({
      secrets: {
        SECRET: { value, hosts: host, in: "body", ...one.secret },
        OTHER: { value: makeSecret(51), hosts: host },
      },
      command: ["sh", "-c", loop, "sh", file, ...suites.map(({ name }) => String(world.server.port(name)))],
      env: { SPEAK: speak, HOST: host, CA: world.authority.caFile, ADDRESS: world.namespace.ipv4.inside },
    });
    const { requests, faults } = await world.server.take();
    const cells = Object.fromEntries(suites.map(({ name }) => [name, tally(requests, name)]));
    const { arrives, inert = 0 } = one;
    assert.deepEqual(
      { faults, status: outcome.status, cells },
      { faults: [], status: 0, cells: Object.fromEntries(suites.map(({ name }) => [name, { arrives, inert }])) },
      outcome.stderr,
    );
    const wanted = [...Array.from({ length: arrives }, () => "substituted"), ...(one.reasons ?? [])];
    assert.deepEqual(
      count(outcome.audit.map(({ reason, outcome: what }) => reason ?? what)),
      count(suites.flatMap(() => wanted)),
    );
    for (const { outcome: what, slot } of outcome.audit) if (what === "substituted") assert.equal(slot, "body");
  });
}

function tally(requests: readonly ServedRequest[], listener: string): { arrives: number; inert: number } {
  const text = requests.flatMap((request) => (request.listener === listener ? (request.body ?? "") : "")).join("");
  return { arrives: timesIn(text, value), inert: timesIn(text, "kloak:") };
}

const python = `
import http.client, os, ssl, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
server = http.client.HTTPSConnection(url.hostname, url.port, context=ssl.create_default_context(cafile=os.environ["CA"]))
for _ in range(2):
    form = urllib.parse.urlencode({"grant_type": "client_credentials", "client_secret": os.environ["KEY"]})
    server.request("POST", "/token", form, {"Content-Type": "application/x-www-form-urlencoded"})
    server.getresponse().read()
`;
const node = `
for (let i = 0; i < 2; i += 1)
  await (await fetch(process.argv[1], { method: "POST", body: JSON.stringify({ key: process.env.KEY, text: "\\u00fc\\n" }) })).text();
`;
const curl = 'curl -sS "$1" "$2" --cacert "$CA" -d "{\\"key\\":\\"$KEY\\"}" "$3" "$3" >/dev/null';

const clients = [
  {
    name: "curl, JSON",
    encoding: "raw",
    command: (url: string) => ["sh", "-c", curl, "sh", "--http1.1", "-HContent-Type: application/json", url],
  },
  { name: "python, a form", encoding: "percent", command: (url: string) => ["python3", "-c", python, url] },
  {
    name: "node, JSON",
    encoding: "raw",
    command: (url: string) => [process.execPath, "--input-type=module", "-e", node, url],
  },
];

function keyIn(body: string): unknown {
  return body.startsWith("{")
    ? (JSON.parse(body) as { key: string }).key
    : new URLSearchParams(body).get("client_secret");
}

for (const { name, encoding, command } of clients) {
  test(`${name}: as the server reads it`, async () => {
    const outcome = await world.kloak({
      secrets: { KEY: { value, hosts: host, in: "body" } },
      command: command(world.url("http/1.1")),
      env: { CA: world.authority.caFile, NODE_EXTRA_CA_CERTS: world.authority.caFile },
    });
    const { requests, faults } = await world.server.take();
    const keys = requests.map(({ body }) => keyIn(body ?? ""));
    assert.deepEqual(
      { faults, status: outcome.status, keys },
      { faults: [], status: 0, keys: [value, value] },
      outcome.stderr,
    );
    assert.deepEqual(count(outcome.audit.map((record) => `${record.outcome} ${record.slot} ${record.encoding}`)), {
      [`substituted body ${encoding}`]: 2,
    });
    for (const post of requests) assert.equal(header(post, "content-length"), String(post.bodyLength));
  });
}

test("a placeholder that ends as the next request's method stays", async () => {
  const script = `${start(length(value.length - 5))}\${SECRET} /b HTTP/1.1\\r\\nHost: ${host}\\r\\n\\r\\n\nsend\nexpect 2\n`;
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: host, in: "body" } },
    command: [speak, "--sni", host, world.namespace.ipv4.inside, String(world.server.port("raw"))],
    input: script,
  });
  const { requests } = await world.server.take({ closed: "raw" });
  const text = requests.map(({ body }) => body ?? "").join("");
  assert.deepEqual([timesIn(text, value), timesIn(text, "kloak:"), outcome.status], [0, 1, 0], outcome.stderr);
  assert.deepEqual(count(outcome.audit.map(({ reason }) => String(reason))), { "split-over-records": 1 });
});

const http2 = `
import { connect } from "node:http2";
import { readFileSync } from "node:fs";
const [url, count, authority = "", header = ""] = process.argv.slice(1);
const { CA, KEY } = process.env;
const session = connect(url, { ca: readFileSync(CA) });
const post = (at) => new Promise((resolve, reject) => {
  const path = { ":method": "POST", ":path": "/" + at, ...(authority && { ":authority": authority }) };
  const stream = session.request({ ...path, ...(header && { authorization: "Bearer " + KEY }) });
  stream.on("response", () => stream.resume()).on("end", resolve).on("error", reject);
  stream.write(JSON.stringify({ at, fill: "x".repeat(at * 700) }));
  setTimeout(() => stream.end(JSON.stringify({ key: KEY, last: true })), 10 * (at % 3));
});
await Promise.all(Array.from({ length: Number(count) }, (_, at) => post(at)));
session.close();
`;
const http2Client = (...args: readonly string[]) => [process.execPath, "--input-type=module", "-e", http2, ...args];

interface Http2Case {
  readonly name: string;
  readonly command: readonly string[];
  readonly secret?: Partial<SecretPlan>;
  /** In the bodies that the server reads. */
  readonly arrives: number;
  readonly inert: number;
  /** How that is told. */
  readonly records: readonly string[];
}

const url = world.url("http/2");
const http2Cases: readonly Http2Case[] = [
  {
    name: "curl, JSON",
    command: ["sh", "-c", curl, "sh", "--http2", "-HContent-Type: application/json", url],
    arrives: 2,
    inert: 0,
    records: ["substituted body raw"],
  },
  {
    name: "python httpx, a form",
    command: [
      "/usr/bin/python3",
      "-c",
      `import httpx, os, ssl
with httpx.Client(http2=True, verify=ssl.create_default_context(cafile=os.environ["CA"])) as client:
    for _ in range(2): client.post("${url}/token", data={"grant": "x", "secret": os.environ["KEY"]}).raise_for_status()`,
    ],
    arrives: 2,
    inert: 0,
    records: ["substituted body percent"],
  },
  {
    name: "twelve requests whose bodies come in turns",
    command: http2Client(url, "12"),
    arrives: 12,
    inert: 0,
    records: ["substituted body raw"],
  },
  {
    name: "the request names another host than the connection",
    command: http2Client(url, "3", otherHost),
    arrives: 0,
    inert: 3,
    records: ["host-not-allowed body raw"],
  },
  {
    name: "a host that the secret does not list",
    command: http2Client(url, "3"),
    secret: { hosts: otherHost },
    arrives: 0,
    inert: 3,
    records: ["host-not-allowed body raw"],
  },
  {
    name: "the second time in a request, after its header",
    command: http2Client(url, "1", "", "header"),
    secret: { in: ["header", "body"] },
    arrives: 0,
    inert: 1,
    records: ["substituted header:authorization huffman", "second-occurrence body raw"],
  },
  {
    name: "of a secret for headers only, where no body is read",
    command: http2Client(url, "1"),
    secret: { in: "header" },
    arrives: 0,
    inert: 1,
    records: ["slot-not-allowed body raw"],
  },
];

for (const { name, command, secret, arrives, inert, records } of http2Cases) {
  test(`HTTP/2, ${name}`, async () => {
    const outcome = await world.kloak({
      secrets: { KEY: { value, hosts: host, in: "body", ...secret } },
      command,
      env: { CA: world.authority.caFile },
    });
    const { requests, faults } = await world.server.take();
    const text = decodeURIComponent(requests.map(({ body }) => body ?? "").join("\n"));
    assert.deepEqual(
      { faults, status: outcome.status, arrives: timesIn(text, value), inert: timesIn(text, "kloak:") },
      { faults: [], status: 0, arrives, inert },
      outcome.stderr,
    );
    const told = outcome.audit.map(
      ({ outcome: what, reason, slot, encoding }) => `${reason ?? what} ${slot} ${encoding}`,
    );
    assert.deepEqual([...new Set(told)].toSorted(), records.toSorted());
    // Of what is refused in a record the first is told.
    assert.equal(told.filter((line) => line.startsWith("substituted body")).length, arrives);
    for (const { protocol } of outcome.audit) assert.equal(protocol, "http/2");
  });
}
