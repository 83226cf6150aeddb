/* The promise: however a client cuts its requests into records, the secret arrives and nothing else changes. Needs root. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import type { ServedRequest } from "../../src/lab/server.ts";
import { suites } from "../../src/lab/suites.ts";
import { count, header } from "../support/requests.ts";
import { buildSpeak, host, makeSecret, World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());
const speak = buildSpeak();

const value = makeSecret(51);
const secrets = { SECRET: { value, hosts: host }, OTHER: { value: makeSecret(40), hosts: host } };

const get = (path: string, more = "") => `GET ${path} HTTP/1.1\\r\\nHost: ${host}\\r\\n${more}`;
const key = "Authorization: Bearer ${SECRET}\\r\\n";
const keyed = (path: string) => `say ${get(path, key)}\\r\\n`;
const post = (path: string, length: number) =>
  `say POST ${path} HTTP/1.1\\r\\nHost: ${host}\\r\\nContent-Length: ${length}\\r\\n\\r\\n`;

interface RecordCase {
  readonly name: string;
  readonly script: readonly string[];
  /** Requests that must carry the secret; all others carry none. */
  readonly keyed: number;
  readonly plain?: number;
  readonly only?: "1.2" | "1.3";
}

const sizes = [1, 15, 16, 17, 255, 256, 257, 4095, 8192, 16383, 16384, 16385, 40000];

const cases: readonly RecordCase[] = [
  { name: "one request", script: [keyed("/a"), "send", "expect 1"], keyed: 1 },
  {
    name: "the sending key changes between requests",
    script: [...many(3, [keyed("/a"), "send", "expect 1", "key-update"]), keyed("/b"), "send", "expect 1"],
    keyed: 4,
    only: "1.3",
  },
  {
    name: "the sending key changes between two uploads",
    script: [post("/u", 5000), "fill 5000", "send", "expect 1", "key-update", keyed("/a"), "send", "expect 1"],
    keyed: 1,
    plain: 1,
    only: "1.3",
  },
  { name: "three requests in one record", script: [keyed("/a"), "again 2", "send", "expect 3"], keyed: 3 },
  {
    name: "a request and the start of the next in one record",
    script: [keyed("/a"), `say ${get("/b")}`, "send", `say ${key}\\r\\n`, "send", "expect 2"],
    keyed: 2,
  },
  {
    name: "a record for each line of the request",
    script: [
      `say GET /a HTTP/1.1\\r\\n`,
      "send",
      `say Host: ${host}\\r\\n`,
      "send",
      `say ${key}`,
      "send",
      "say \\r\\n",
      "send",
      "expect 1",
    ],
    keyed: 1,
  },
  {
    name: "records of one byte each",
    script: [
      keyed("/a"),
      `pieces ${"1 ".repeat(40).trim()}`,
      "expect 1",
      keyed("/b"),
      `pieces ${"1 ".repeat(20).trim()}`,
      "expect 1",
    ],
    keyed: 2,
  },
  {
    name: "the placeholder ends the record",
    script: [`say ${get("/a")}Authorization: Bearer \${SECRET}`, "send", "say \\r\\n\\r\\n", "send", "expect 1"],
    keyed: 1,
  },
  {
    name: "the placeholder begins the record",
    script: [`say ${get("/a")}Authorization: Bearer `, "send", "say ${SECRET}\\r\\n\\r\\n", "send", "expect 1"],
    keyed: 1,
  },
  {
    name: "a body of every size before a request",
    script: [
      ...sizes.flatMap((size) => [post("/u", size), "send", `fill ${size}`, "send", "expect 1"]),
      keyed("/a"),
      "send",
      "expect 1",
    ],
    keyed: 1,
    plain: sizes.length,
  },
  {
    name: "a body in the record of its header block, the next request in the record of the body's end",
    script: [post("/u", 6000), "fill 5000", "send", "fill 1000", keyed("/a"), "send", "expect 2"],
    keyed: 1,
    plain: 1,
  },
  {
    name: "a chunked body, cut anywhere, then a request",
    script: [
      `say POST /u HTTP/1.1\\r\\nHost: ${host}\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n5\\r\\nhello\\r\\n1A;x=y\\r\\nabcdefghijklmnopqrstuvwxyz\\r\\n0\\r\\n\\r\\n`,
      "pieces 90 1 1 5 2 3 10 12",
      keyed("/a"),
      "send",
      "expect 2",
    ],
    keyed: 1,
    plain: 1,
  },
  {
    name: "a request that fills a record of 16384 bytes",
    script: [`say ${get("/a", key)}X-Fill: `, `fill ${16384 - fixedBytes()}`, "say \\r\\n\\r\\n", "send", "expect 1"],
    keyed: 1,
  },
  {
    name: "header blocks of more than one record, the secret in the last",
    script: [`say ${get("/a")}X-Fill: `, "fill 30000", `say \\r\\n${key}\\r\\n`, "send", "expect 1"],
    keyed: 1,
  },
];

for (const one of cases) {
  for (const version of ["1.3", "1.2"] as const) {
    if (one.only !== undefined && one.only !== version) continue;
    test(`TLS ${version}: ${one.name}`, async () => {
      const here = suites.filter(({ audit }) => audit.version === version);
      const file = join(world.directory, "script");
      writeFileSync(file, `${one.script.join("\n")}\n`);
      const loop =
        'script=$1; shift; for port; do "$SPEAK" --sni "$HOST" --ca "$CA" "$ADDRESS" "$port" <"$script" || exit; done';
      const outcome = await world.kloak({
        secrets,
        command: ["sh", "-c", loop, "sh", file, ...here.map(({ name }) => String(world.server.port(name)))],
        env: { SPEAK: speak, HOST: host, CA: world.authority.caFile, ADDRESS: world.namespace.ipv4.inside },
      });
      const { requests, faults } = await world.server.take();
      const cells = Object.fromEntries(
        here.map(({ name }) => [name, tally(requests.filter((r) => r.listener === name))]),
      );
      const wanted = { keyed: one.keyed, inert: 0, plain: one.plain ?? 0 };
      assert.deepEqual(
        { ...cells, faults, stderr: outcome.stderr, status: outcome.status },
        { ...Object.fromEntries(here.map(({ name }) => [name, wanted])), faults: [], stderr: "", status: 0 },
      );
      assert.deepEqual(count(outcome.audit.map((record) => record.outcome)), { substituted: one.keyed * here.length });
    });
  }
}

test("two secrets in one request", async () => {
  const script = [`say ${get("/a", `${key}X-Api-Key: \${OTHER}\\r\\n`)}\\r\\n`, "send", "expect 1"];
  const command = [speak, "--sni", host, world.namespace.ipv4.inside, String(world.server.port("1.3 aes-256-gcm"))];
  const outcome = await world.kloak({ secrets, command, input: `${script.join("\n")}\n` });
  const { requests } = await world.server.take();
  assert.equal(outcome.status, 0, outcome.stderr);
  const [request] = requests;
  assert.ok(request);
  assert.equal(header(request, "authorization"), `Bearer ${value}`);
  assert.equal(header(request, "x-api-key"), secrets.OTHER.value);
});

// The user name moves the secret through the three places that a byte can have in a group of base64.
for (const user of ["u", "us", "use", "user"]) {
  test(`Basic authentication as ${user}`, async () => {
    const urls = suites.map((suite) => world.url(suite.name));
    const script =
      'ca=$1 user=$2; shift 2; for url; do curl -sSf -o /dev/null --cacert "$ca" -u "$user:$SECRET" "$url/a" || exit; done';
    const command = ["sh", "-c", script, "sh", world.authority.caFile, user, ...urls];
    const outcome = await world.kloak({ secrets, command });
    const { requests, faults } = await world.server.take();
    const arrived = requests.map((request) =>
      Buffer.from(header(request, "authorization").slice(6), "base64").toString(),
    );
    const wanted = suites.map(() => `${user}:${value}`);
    assert.deepEqual({ arrived, faults, stderr: outcome.stderr }, { arrived: wanted, faults: [], stderr: "" });
    assert.deepEqual(new Set(outcome.audit.map(({ encoding }) => encoding)).size, 1);
    assert.match(outcome.audit[0]?.encoding ?? "", /^base64/);
  });
}

function tally(requests: readonly ServedRequest[]): { keyed: number; inert: number; plain: number } {
  const headers = requests.map((request) => header(request, "authorization"));
  return {
    keyed: headers.filter((text) => text === `Bearer ${value}`).length,
    inert: headers.filter((text) => text.includes("kloak:")).length,
    plain: headers.filter((text) => text === "").length,
  };
}

function many(times: number, lines: readonly string[]): string[] {
  return Array.from({ length: times }, () => lines).flat();
}

/** Bytes of the request that is filled up to a whole record, without its filling. */
function fixedBytes(): number {
  return `GET /a HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${value}\r\nX-Fill: \r\n\r\n`.length;
}
