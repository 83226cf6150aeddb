/*
 * THREATS D1, D2, D3, D7, D8, D9, D10, D11: a program that seals its records by code of its own, and tells the functions
 * that are heard whatever it likes. Each attack is tried on a secret of every proof; where `record` or `none` is known
 * to stop less, the attack must succeed there, so that it is known to be one. Needs root.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createDecipheriv } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import type { AuditRecord } from "../../src/audit/index.ts";
import { timesIn } from "../support/requests.ts";
import { host, makeSecret, World } from "../support/world.ts";
import { attackFactor, audited, buildProgram, Machine, occurrences, texts } from "./attack.ts";

const world = await World.create(({ good }) => [
  { name: "raw", kind: "raw", certificate: good, version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256" },
]);
after(() => world.close());
const forger = buildProgram("forger");
const server = world.namespace.ipv4.inside;
const port = String(world.server.port("raw"));

type Proof = "flow" | "record" | "none";
const proofs: readonly Proof[] = ["flow", "record", "none"];

interface Forgery {
  readonly threat: string;
  readonly name: string;
  readonly script: readonly string[];
  /** How often the secret arrives, by its proof; 0 if nothing else is said. */
  readonly arrives?: Partial<Record<Proof, number>>;
  /** Reasons in the audit trail, one of which must be there for each proof under which nothing arrives. */
  readonly reasons: readonly string[];
  /** A record that nobody can open is no placeholder that arrives. */
  readonly placeholder?: number;
}

const line = (text: string) => text.replaceAll("\r\n", "\\r\\n");
const get = (more = "", name = host, path = "/a") => line(`GET ${path} HTTP/1.1\r\nHost: ${name}\r\n${more}\r\n`);
const key = "Authorization: Bearer ${SECRET}\r\n";
const honest = get(key);
const valueLength = 51;
const honestLength = get(key).replace("${SECRET}", "x".repeat(valueLength)).replaceAll("\\r\\n", "\r\n").length;
const post = (length: number, more = "") =>
  line(`POST /collect HTTP/1.1\r\nHost: ${host}\r\nContent-Length: ${length}\r\n${more}\r\n`);
const padded = (text: string, length: number) => text + "z".repeat(length - text.length);

/** A request of 200 bytes. */
const filled = (make: (more: string) => string) => {
  const bare = make("X-Fill: \r\n").replaceAll("\\r\\n", "\r\n").length;
  return make(`X-Fill: ${"z".repeat(200 - bare)}\r\n`);
};

/** A POST of as many bytes as the honest request, the placeholder in its body. */
const lyingPost = (() => {
  const head = `POST / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: `;
  const rest = honestLength - valueLength - head.length - 6;
  return line(`${head}${valueLength + rest}\r\n\r\n${"z".repeat(rest)}\${SECRET}`);
})();

/** Starts like the honest request, 16 bytes and more, and has the placeholder at the same place: under another name. */
const sameStart = line(`GET /a HTTP/1.1\r\nHost: ${host}\r\nX-Displayed-A: Bearer \${SECRET}\r\n\r\n`);

const forgeries: readonly Forgery[] = [
  {
    threat: "control",
    name: "the forger as an honest client",
    script: [`both ${honest}`, `both ${honest}`],
    arrives: { flow: 2, record: 2, none: 2 },
    placeholder: 0,
    reasons: [],
  },
  {
    threat: "D1",
    name: "a decoy: what is heard is a good request, what leaves has the placeholder in a body",
    script: [`hear ${honest}`, `send ${lyingPost}`],
    // The record that leaves is not known at all: there is nobody to say what was in it.
    reasons: [],
  },
  {
    threat: "D7",
    name: "the decoy and the record share more than their first block",
    script: [`hear ${honest}`, `send ${sameStart}`],
    reasons: ["unproven-record"],
  },
  {
    threat: "D7",
    name: "the decoy has an allowed Host, the record another tenant's of the same length",
    script: [`hear ${honest}`, `send ${get(key, host.replace("api", "bpi"))}`],
    reasons: ["unproven-record"],
  },
  {
    threat: "D7",
    name: "the second request is the forged one",
    script: [`both ${honest}`, `hear ${honest}`, `send ${sameStart}`],
    arrives: { flow: 1, record: 1, none: 1 },
    reasons: ["unproven-record"],
  },
  {
    threat: "D7",
    name: "decoy and record differ only behind the placeholder, where the record has a second Host",
    script: [
      `hear ${get(`${key}X-Fill: ${"z".repeat(20)}\r\n`)}`,
      `send ${get(`${key}Host: ${"tenant.test".padStart(22, "x")}\r\n`)}`,
    ],
    reasons: ["unproven-record"],
  },
  {
    threat: "D7",
    name: "the same in the second of two requests of one record",
    script: [
      `hear ${get()}${get(`${key}X-Fill: ${"z".repeat(20)}\r\n`)}`,
      `send ${get()}${get(`${key}Host: ${"tenant.test".padStart(22, "x")}\r\n`)}`,
    ],
    reasons: ["unproven-record"],
  },
  {
    threat: "D8",
    name: "an unheard record opens a body that the next, heard and honest one fills",
    script: [`send ${post(honestLength)}`, `both ${honest}`],
    arrives: { record: 1, none: 1 },
    reasons: ["unproven-flow"],
  },
  {
    threat: "D8",
    name: "the same after a request that was honest",
    script: [`both ${honest}`, `send ${post(honestLength)}`, "ahead 0", `both ${honest}`],
    arrives: { flow: 1, record: 1, none: 1 },
    reasons: ["unproven-flow"],
  },
  {
    threat: "D8",
    name: "a decoy without a secret stands for the record that opens the body",
    script: [`hear ${filled(get)}`, `send ${filled((more) => post(honestLength, more))}`, `both ${honest}`],
    arrives: { record: 1, none: 1 },
    reasons: ["unproven-flow"],
  },
  {
    threat: "D8",
    name: "the body that leaves ends otherwise than the one that was heard",
    script: [
      `both ${post(300)}`,
      `hear ${"a".repeat(300)}`,
      `send ${padded(`${"a".repeat(100)}${post(5000)}`, 300)}`,
      `both ${honest}`,
    ],
    arrives: { record: 1, none: 1 },
    reasons: ["unproven-flow"],
  },
  {
    threat: "D10",
    name: "the key is installed again in the middle of a body",
    script: [`both ${post(honestLength)}`, "install", `both ${honest}`],
    reasons: [],
  },
  {
    threat: "D10",
    name: "the key is installed again to skip an unheard record",
    script: [`both ${get()}`, `send ${post(honestLength)}`, "install", `both ${honest}`],
    reasons: ["unproven-flow"],
  },
  {
    threat: "D10",
    name: "words that are no request make the key forgotten; then it is installed anew",
    script: [`both PRI * HTTP/2.0${line("\r\n\r\n")}`, `send ${post(honestLength)}`, "install", `both ${honest}`],
    reasons: ["unproven-flow"],
  },
  {
    threat: "D10",
    name: "padding hides that a body is shorter than it looks",
    script: [`both ${post(honestLength + 100)}`, "pad 50", `both ${"a".repeat(50)}`, `both ${honest}`],
    reasons: ["unproven-flow"],
  },
  {
    threat: "D10",
    name: "padding hides that the record that leaves is shorter than the one heard",
    script: [`both ${post(100)}`, `hear ${"a".repeat(100)}`, "pad 60", `send ${"a".repeat(40)}`, `both ${honest}`],
    arrives: { record: 1, none: 1 },
    reasons: ["unproven-flow"],
  },
  {
    threat: "D10",
    name: "the same in the middle of a body, behind padding as Java has it, which is looked through",
    script: [
      `both ${post(300)}`,
      "pad 16",
      `hear ${"a".repeat(200)}`,
      "pad 116",
      `send ${"a".repeat(100)}`,
      `both ${"a".repeat(100)}`,
      `both ${honest}`,
    ],
    arrives: { record: 1, none: 1 },
    reasons: ["unproven-flow"],
  },
  {
    threat: "D10",
    name: "256 unheard records before the first heard one",
    script: ["count 255", `send ${post(honestLength)}`, `both ${honest}`],
    arrives: { record: 1, none: 1 },
    reasons: ["unproven-flow"],
  },
  {
    threat: "D10",
    name: "512 unheard records between two heard ones, so that the ring of marks comes round",
    script: [`both ${get()}`, "count 511", `send ${post(honestLength)}`, `both ${honest}`],
    reasons: ["unproven-flow"],
  },
  {
    threat: "D10",
    name: "the heard request is for a later record than the one that leaves",
    script: ["ahead 1", `hear ${honest}`, "ahead 0", `send ${post(honestLength)}`, `send ${honest}`],
    arrives: { record: 1, none: 1 },
    reasons: ["unproven-flow"],
  },
  {
    threat: "D3",
    name: "the record is sealed as a handshake message",
    script: ["type 22", `hear ${honest}`, `send ${honest}`],
    reasons: [],
  },
];

interface Result {
  readonly values: Readonly<Record<Proof, string>>;
  readonly heard: Readonly<Record<Proof, string>>;
  readonly audit: Readonly<Record<Proof, readonly AuditRecord[]>>;
}

/** All in one run, since a run takes longer to start than an attack: each forgery and proof has a secret of its own. */
async function tryAll(): Promise<Result[]> {
  const cases = forgeries.flatMap((forgery, at) =>
    proofs.map((proof) => ({ ...forgery, at, proof, secret: `SECRET_${at}_${proof}`, value: makeSecret(valueLength) })),
  );
  const script = cases.map(({ at, secret, script: lines }) => {
    const file = join(world.directory, `script-${at}`);
    writeFileSync(file, `${lines.join("\n")}\n`);
    return `SECRET=$${secret} "$@" < ${file}`;
  });
  const outcome = await world.kloak({
    secrets: Object.fromEntries(cases.map(({ secret, value, proof }) => [secret, { value, hosts: host, proof }])),
    command: ["sh", "-c", script.join(" && "), "sh", forger, host, server, port],
    options: ["--quiet"],
  });
  const { requests } = await world.server.take({ closed: "raw" });
  const heard = texts(requests, "raw");
  assert.deepEqual({ stderr: outcome.stderr, status: outcome.status }, { stderr: "", status: 0 });
  assert.equal(heard.length, cases.length);
  // One after the other: what connection N said is what case N sent.
  return forgeries.map((_, at) => {
    const mine = cases.map((one, index) => ({ ...one, text: heard[index] ?? "" })).filter((one) => one.at === at);
    const by = <T>(pick: (one: (typeof mine)[number]) => T) =>
      Object.fromEntries(mine.map((one) => [one.proof, pick(one)])) as Record<Proof, T>;
    return {
      values: by(({ value }) => value),
      heard: by(({ text }) => text),
      audit: by(({ secret }) => outcome.audit.filter((record) => record.secret === secret)),
    };
  });
}

let tried: Promise<Result[]> | undefined;

for (const [at, { threat, name, arrives = {}, reasons, placeholder = 1 }] of forgeries.entries()) {
  test(`${threat}: ${name}`, async () => {
    tried ??= tryAll();
    const result = (await tried)[at];
    assert.ok(result);
    const { values, heard, audit } = result;
    const all = Object.values(heard).join("\n");
    const got = Object.fromEntries(proofs.map((proof) => [proof, timesIn(all, values[proof])]));
    assert.deepEqual(
      got,
      { flow: 0, record: 0, none: 0, ...arrives },
      `${JSON.stringify(audited(Object.values(audit).flat()))} ${all.slice(0, 2000)}`,
    );
    for (const proof of proofs) {
      const replaced: number = got[proof] ?? 0;
      const total = replaced + timesIn(heard[proof], "kloak:");
      if (threat !== "D3") assert.ok(total >= replaced + (arrives.flow === replaced ? placeholder : 0), heard[proof]);
      const mine = audit[proof];
      assert.equal(mine.filter((record) => record.outcome === "substituted").length, replaced);
      if (replaced > (arrives.flow ?? 0) || reasons.length === 0) continue;
      const why = mine.filter((record) => record.outcome === "refused").map(({ reason }) => reason);
      assert.ok(
        why.some((reason) => reason !== null && reasons.includes(reason)),
        `${proof}: refused for ${JSON.stringify(why)}`,
      );
    }
  });
}

test("D3: a record under a key that everybody knows, on a connection that is no TLS", async () => {
  const sink = await Machine.start(world.namespace, "sink.py");
  const value = makeSecret(valueLength);
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: `${server}/32`, attest: "none", proof: "none" } },
    command: [forger, "plain", server, String(sink.port)],
    input: `both ${get(key, server)}\n`,
    options: ["--quiet"],
  });
  const heard = await sink.close();
  assert.deepEqual({ stderr: outcome.stderr, status: outcome.status }, { stderr: "", status: 0 });
  const decipher = createDecipheriv("aes-128-gcm", Buffer.alloc(16), Buffer.alloc(12));
  const text = decipher.update(heard.subarray(5, -16)).toString("latin1");
  assert.equal(occurrences(text, value), 0);
  assert.match(text, /kloak:/);
  assert.deepEqual(audited(outcome.audit), { "refused no-sni SECRET": 1 });
});

const perConnection = 50;
const races = 1000 * attackFactor;

test(`D9, D2: a thread changes Host while the record is sealed, ${races} records`, async () => {
  const value = makeSecret(valueLength);
  const file = join(world.directory, "race");
  // "Api" is the allowed host, whatever the case of its letters; "bpi" is a tenant behind the same front end.
  writeFileSync(file, `race ${perConnection} ${honest}\n`);
  const script = `for i in $(seq ${races / perConnection}); do "$@" < ${file} || exit; done`;
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: host } },
    command: ["sh", "-c", script, "sh", forger, host, server, port],
    options: ["--quiet"],
    deadlineMs: 120_000 * attackFactor,
  });
  const { requests } = await world.server.take({ closed: "raw" });
  const heard = texts(requests, "raw");
  assert.deepEqual({ stderr: outcome.stderr, status: outcome.status }, { stderr: "", status: 0 });
  assert.equal(heard.length, races / perConnection);
  const all = heard.join("").split("\r\n\r\n");
  const stolen = all.filter((request) => request.includes("Host: bpi") && request.includes(value));
  assert.deepEqual(stolen, []);
  assert.ok(
    all.some((request) => request.includes("Host: bpi")),
    "the race was lost every time",
  );
  const given = all.filter((request) => request.includes(value)).length;
  assert.equal(outcome.audit.filter((record) => record.outcome === "substituted").length, given);
  const reasons = new Set(outcome.audit.flatMap(({ reason }) => reason ?? []));
  for (const reason of reasons) assert.match(reason, /^(host-not-allowed|unproven-record|unproven-flow)$/);
});

test("D11: a record heard in one workload leaves through another's interface", async () => {
  const value = makeSecret(valueLength);
  const secrets = { SECRET: { value, hosts: host, proof: "none" } };
  const go = join(world.directory, "go");
  execFileSync("mkfifo", [go]);
  // The sender has the connection and its keys, and no secret of its own; it gets the placeholder from the hearer.
  const hearer = world.start({
    secrets,
    command: ["sh", "-c", 'echo "$SECRET"; read k i; "$1" hear $k $i', "sh", forger],
    input: null,
    options: ["--quiet"],
  });
  const placeholder = await hearer.firstLine();
  const sender = world.start({
    secrets: { OTHER: { value: makeSecret(20), hosts: host } },
    command: ["env", `SECRET=${placeholder}`, `FORGER_GO=${go}`, forger, host, server, port],
    input: `export\nsend ${honest}\n`,
    options: ["--quiet"],
  });
  const keys = await sender.firstLine();
  hearer.child.stdin?.end(`${keys}\nhear ${honest}\n`);
  const heard = await hearer.ended;
  assert.deepEqual({ stderr: heard.stderr, status: heard.status }, { stderr: "", status: 0 });
  // The hearer is gone, and its tables with it: what it has published is nobody's.
  writeFileSync(go, "g");
  const sent = await sender.ended;
  const { requests } = await world.server.take({ closed: "raw" });
  const text = texts(requests, "raw").join("");
  assert.deepEqual({ stderr: sent.stderr, status: sent.status }, { stderr: "", status: 0 });
  assert.deepEqual(
    { secret: timesIn(text, value), placeholder: timesIn(text, placeholder) },
    { secret: 0, placeholder: 1 },
  );
  assert.equal([...heard.audit, ...sent.audit].filter((record) => record.outcome === "substituted").length, 0);
});
