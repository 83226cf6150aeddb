/*
 * THREATS C, D4, D5, D6, E and F: other workloads' placeholders, odd numbers and places of placeholders, processes that
 * share sessions, requests that two servers read in two ways. Needs root.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { suites } from "../../src/lab/suites.ts";
import { header, timesIn } from "../support/requests.ts";
import { buildSpeak, host, makeSecret, otherHost, World } from "../support/world.ts";
import { attackFactor, audited, occurrences, program, texts } from "./attack.ts";

const world = await World.create(({ good }) => [{ name: "raw", kind: "raw", certificate: good }]);
after(() => world.close());
const speak = buildSpeak();
const ca = world.authority.caFile;
const url = world.url("1.3 aes-256-gcm");
const quiet = ["--quiet"];
const raw = [world.namespace.ipv4.inside, String(world.server.port("raw"))];
const secretsOf = (value: string, more: Readonly<Record<string, unknown>> = {}) => ({
  SECRET: { value, hosts: host, ...more },
});

test("C1: two workloads that may use the same host, each with the other's placeholder", async () => {
  const values = [makeSecret(51), makeSecret(51)] as const;
  // Each says its placeholder, reads the other's, and sends both: the one that it was given, and its own.
  const script = `echo "$SECRET"; read other; curl -sS -o /dev/null --cacert ${ca} -H "X-Own: $SECRET" -H "X-Other: $other" ${url}/a`;
  const runs = values.map((value) =>
    world.start({ secrets: secretsOf(value), command: ["sh", "-c", script], options: quiet, input: null }),
  );
  const placeholders = await Promise.all(runs.map((run) => run.firstLine()));
  runs.forEach((run, at) => run.child.stdin?.end(`${placeholders[1 - at]}\n`));
  const outcomes = await Promise.all(runs.map((run) => run.ended));
  const { requests, faults } = await world.server.take();
  assert.deepEqual(faults, []);
  assert.equal(requests.length, 2);
  const own = requests.map((request) => header(request, "x-own")).sort();
  assert.deepEqual(own, [...values].sort());
  const others = requests.map((request) => header(request, "x-other")).sort();
  assert.deepEqual(others, [...placeholders].sort());
  for (const { stderr, status, audit } of outcomes) {
    assert.deepEqual({ stderr, status }, { stderr: "", status: 0 });
    assert.equal(audit.filter(({ outcome }) => outcome === "substituted").length, 1);
  }
});

test("C2: the placeholder of a run that has ended", async () => {
  const value = makeSecret(51);
  const first = await world.kloak({
    secrets: secretsOf(value),
    command: ["sh", "-c", 'echo "$SECRET"'],
    options: quiet,
  });
  const second = await world.kloak({
    secrets: { OTHER: { value: makeSecret(20), hosts: host } },
    command: ["curl", "-sS", "-o", "/dev/null", "--cacert", ca, "-H", `X-Old: ${first.stdout.trim()}`, `${url}/a`],
    options: quiet,
  });
  const { requests } = await world.server.take();
  assert.deepEqual({ stderr: second.stderr, status: second.status }, { stderr: "", status: 0 });
  assert.deepEqual(
    requests.map((request) => header(request, "x-old")),
    [first.stdout.trim()],
  );
  assert.deepEqual(audited(second.audit), {});
});

const guesses = 40_000 * attackFactor;

test(`C4: ${guesses} guessed placeholders, half of them right but for their end`, async () => {
  const value = makeSecret(51);
  const outcome = await world.kloak({
    secrets: secretsOf(value),
    command: ["python3", program("guess.py"), ca, url, String(guesses / 16), "16"],
    options: quiet,
    deadlineMs: 120_000 * attackFactor,
  });
  const { requests, faults } = await world.server.take();
  assert.deepEqual({ stderr: outcome.stderr, status: outcome.status, faults }, { stderr: "", status: 0, faults: [] });
  assert.equal(requests.length, guesses / 16 + 1);
  const all = JSON.stringify(requests.slice(0, -1).map(({ headers }) => headers));
  assert.equal(occurrences(all, value), 0);
  assert.equal(timesIn(all, "kloak:"), guesses);
  assert.deepEqual(audited(outcome.audit), { "substituted SECRET": 1 });
});

test("C6: two secrets whose placeholders begin alike are told apart", async () => {
  const secrets = {
    FIRST: { value: makeSecret(51), hosts: host, prefix: "sk-live-" },
    SECOND: { value: makeSecret(51), hosts: otherHost, prefix: "sk-live-" },
  };
  const script = `curl -sS -o /dev/null --cacert ${ca} -H "X-First: $FIRST" -H "X-Second: $SECOND" ${url}/a`;
  const outcome = await world.kloak({ secrets, command: ["sh", "-c", script], options: quiet });
  const { requests } = await world.server.take();
  assert.deepEqual({ stderr: outcome.stderr, status: outcome.status }, { stderr: "", status: 0 });
  const [request] = requests;
  assert.ok(request);
  assert.equal(occurrences(JSON.stringify(request.headers), secrets.SECOND.value), 0);
  // A record is patched whole or not at all: with one that may not go there the other stays as well.
  assert.equal(occurrences(JSON.stringify(request.headers), secrets.FIRST.value), 0);
  assert.equal(audited(outcome.audit)["refused host-not-allowed SECOND"], 1, JSON.stringify(audited(outcome.audit)));
});

/** Runs `speak` with each of these scripts in one run, and returns what each connection said. */
async function speakAll(
  scripts: readonly (readonly string[])[],
  secrets: Parameters<typeof world.kloak>[0]["secrets"],
) {
  const files = scripts.map((script, at) => {
    const file = join(world.directory, `speak-${at}`);
    writeFileSync(file, `${script.join("\n")}\n`);
    return file;
  });
  const each = `for file in ${files.join(" ")}; do ${speak} --sni ${host} ${raw.join(" ")} <$file >/dev/null || exit; done`;
  const outcome = await world.kloak({ secrets, command: ["sh", "-c", each], options: quiet });
  const { requests } = await world.server.take({ closed: "raw" });
  assert.deepEqual({ stderr: outcome.stderr, status: outcome.status }, { stderr: "", status: 0 });
  const said = texts(requests, "raw");
  assert.equal(said.length, scripts.length);
  return { outcome, said };
}

const request = (more: string) => `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\n${more}\\r\\n`;

test("D4: 10000 placeholders in a header block, over many records", async () => {
  const value = makeSecret(24);
  const many = [
    `say GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\nX-Many: `,
    "say ${SECRET},",
    "again 9999",
    "say \\r\\n\\r\\n",
    "send",
    "expect 1",
  ];
  const after = [`say ${request("Authorization: Bearer ${SECRET}\\r\\n")}`, "send", "expect 1"];
  const { said, outcome } = await speakAll([[...many, ...after]], secretsOf(value));
  const [text = ""] = said;
  const total = timesIn(text, value) + timesIn(text, "kloak:");
  assert.equal(total, 10_001);
  assert.ok(timesIn(text.slice(0, text.indexOf("\r\n\r\n")), value) <= 1, "at most one of a request");
  assert.equal(audited(outcome.audit)["substituted SECRET"] ?? 0, timesIn(text, value));
  assert.ok(
    (audited(outcome.audit)["refused second-occurrence SECRET"] ?? 0) > 0,
    JSON.stringify(audited(outcome.audit)),
  );
});

test("D4: 4000 placeholders of 8 bytes in one record after another, in a body and in a path", async () => {
  const value = makeSecret(8);
  const body = [
    `say POST /a HTTP/1.1\\r\\nHost: ${host}\\r\\nContent-Length: 32000\\r\\n\\r\\n`,
    "say ${SECRET}",
    "again 3999",
    "send",
    "expect 1",
  ];
  const path = [
    "say GET /",
    "say ${SECRET}",
    "again 1999",
    `say  HTTP/1.1\\r\\nHost: ${host}\\r\\n\\r\\n`,
    "send",
    "expect 1",
  ];
  const { said, outcome } = await speakAll([[...body], [...path]], secretsOf(value));
  assert.deepEqual(
    said.map((text) => timesIn(text, value)),
    [0, 0],
  );
  assert.equal(audited(outcome.audit)["substituted SECRET"], undefined);
});

test("D4: a placeholder at the first and at the last byte of a record, cut between any two of its bytes", async () => {
  const value = makeSecret(16);
  const cut = request("Authorization: Bearer ${SECRET}\\r\\n");
  const start = `GET /a HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer `.length;
  const scripts = Array.from({ length: 17 }, (_, at) => [`say ${cut}`, `pieces ${start + at}`, "expect 1"]);
  const { said, outcome } = await speakAll(scripts, secretsOf(value));
  assert.deepEqual(
    said.map((text) => timesIn(text, value)),
    scripts.map((_, at) => (at === 0 || at === 16 ? 1 : 0)),
  );
  for (const text of said) assert.equal(text.length, start + 16 + 4, "whole, in one version or the other");
  assert.deepEqual(audited(outcome.audit), { "refused split-over-records": 15, "substituted SECRET": 2 });
});

test("D5: fork, threads that exchange sessions, contexts whose addresses are used again", async () => {
  const value = makeSecret(51);
  const listeners = suites.map(({ name }) => name);
  const script = listeners.map((name) => `python3 ${program("fork.py")} ${ca} ${world.url(name)}`).join(" && ");
  const outcome = await world.kloak({ secrets: secretsOf(value), command: ["sh", "-c", script], options: quiet });
  const { requests, faults } = await world.server.take();
  assert.deepEqual({ stderr: outcome.stderr, status: outcome.status, faults }, { stderr: "", status: 0, faults: [] });
  const inert = requests.filter((one) => header(one, "authorization") !== `Bearer ${value}`);
  // A session that goes on in a child is one that nobody has heard from its start: what it says stays as it is.
  assert.deepEqual(new Set(inert.map(({ path }) => path.split("/").slice(0, 2).join("/"))).size <= 1, true);
  assert.deepEqual(
    inert.filter(({ path }) => !path.startsWith("/child/")).map(({ listener, path }) => `${listener} ${path}`),
    [],
  );
  assert.equal(requests.length, listeners.length * (3 + 20 + 32 + 20));
  assert.equal(audited(outcome.audit)["substituted SECRET"], requests.length - inert.length);
});

/** Where in these the secret stood, a server could take it for a body, for a header of another request, or another's. */
const key = "Authorization: Bearer ${SECRET}\\r\\n";
const post = (headers: string, body: string) => `POST /a HTTP/1.1\\r\\nHost: ${host}\\r\\n${headers}\\r\\n${body}`;
const smuggled = `GET /b HTTP/1.1\\r\\nHost: ${host}\\r\\n${key}\\r\\n`;
const shapes: Readonly<Record<string, string>> = {
  "two lengths that differ": post("Content-Length: 0\\r\\nContent-Length: 500\\r\\n", smuggled),
  "two lengths that agree": post("Content-Length: 0\\r\\nContent-Length: 0\\r\\n", smuggled),
  "a list of lengths": post("Content-Length: 0, 500\\r\\n", smuggled),
  "a length with a sign": post("Content-Length: +500\\r\\n", smuggled),
  "a length in hexadecimal": post("Content-Length: 0x1f4\\r\\n", smuggled),
  "a length of 20 digits": post("Content-Length: 18446744073709551616\\r\\n", smuggled),
  "a length with a space inside": post("Content-Length: 5 00\\r\\n", smuggled),
  "an empty length": post("Content-Length: \\r\\n", smuggled),
  "a length and chunks": post("Content-Length: 500\\r\\nTransfer-Encoding: chunked\\r\\n", `0\\r\\n\\r\\n${smuggled}`),
  "chunks and a length": post("Transfer-Encoding: chunked\\r\\nContent-Length: 5\\r\\n", `0\\r\\n\\r\\n${smuggled}`),
  "chunks twice": post("Transfer-Encoding: chunked\\r\\nTransfer-Encoding: identity\\r\\n", `0\\r\\n\\r\\n${smuggled}`),
  "another coding": post("Transfer-Encoding: gzip, chunked\\r\\n", `0\\r\\n\\r\\n${smuggled}`),
  "a coding that looks like chunks": post("Transfer-Encoding: xchunked\\r\\n", `0\\r\\n\\r\\n${smuggled}`),
  "a coding in quotes": post(
    'Transfer-Encoding: \\"chunked\\"\\r\\n'.replaceAll('\\"', '"'),
    `0\\r\\n\\r\\n${smuggled}`,
  ),
  "a vertical tab before the coding": post("Transfer-Encoding: \\x0bchunked\\r\\n", `0\\r\\n\\r\\n${smuggled}`),
  "a space before the colon": post("Transfer-Encoding : chunked\\r\\n", `0\\r\\n\\r\\n${smuggled}`),
  "a folded coding": post("Transfer-Encoding:\\r\\n chunked\\r\\n", `0\\r\\n\\r\\n${smuggled}`),
  "a bare line feed after a header": post("X: y\\nContent-Length: 500\\r\\n", smuggled),
  "a bare carriage return in a header": post("X: y\\rContent-Length: 500\\r\\n", smuggled),
  "a NUL in a header": post("X: y\\x00z\\r\\n", smuggled),
  "a chunk size with a sign": post("Transfer-Encoding: chunked\\r\\n", `+0\\r\\n\\r\\n${smuggled}`),
  "a chunk size with 0x": post("Transfer-Encoding: chunked\\r\\n", `0x0\\r\\n\\r\\n${smuggled}`),
  "a chunk size of 2^64": post("Transfer-Encoding: chunked\\r\\n", `10000000000000000\\r\\n\\r\\n${smuggled}`),
  "a line feed ends a chunk extension": post("Transfer-Encoding: chunked\\r\\n", `0;a\\n\\r\\n\\r\\n${smuggled}`),
  "a chunk that is longer than its size": post(
    "Transfer-Encoding: chunked\\r\\n",
    `1\\r\\nab\\r\\n0\\r\\n\\r\\n${smuggled}`,
  ),
  "in a trailer": post("Transfer-Encoding: chunked\\r\\n", `0\\r\\n${key}\\r\\n`),
  "in a chunk extension": post("Transfer-Encoding: chunked\\r\\n", "0;key=${SECRET}\\r\\n\\r\\n"),
  "in a chunk that imitates a request": post("Transfer-Encoding: chunked\\r\\n", `200\\r\\n${smuggled}`),
  "a target with another host": `GET http://tenant.test/ HTTP/1.1\\r\\nHost: ${host}\\r\\n${key}\\r\\n`,
  "a target that begins with another host": `GET //tenant.test/ HTTP/1.1\\r\\nHost: tenant.test\\r\\n${key}\\r\\n`,
  "after CONNECT": `CONNECT tenant.test:443 HTTP/1.1\\r\\nHost: ${host}\\r\\n\\r\\n${smuggled}`,
  "after an upgrade": `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n${smuggled}`,
  "after an upgrade to HTTP/2": `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\nUpgrade: h2c\\r\\nHTTP2-Settings: AAMAAABk\\r\\n\\r\\n${smuggled}`,
  "a second Host": `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\n${key}Host: tenant.test\\r\\n\\r\\n`,
  "a second Host before": `GET /a HTTP/1.1\\r\\nHost: tenant.test\\r\\nHost: ${host}\\r\\n${key}\\r\\n`,
  "a Host with a name before it": `GET /a HTTP/1.1\\r\\nHost: ${host}@tenant.test\\r\\n${key}\\r\\n`,
  "a Host that goes on after its port": `GET /a HTTP/1.1\\r\\nHost: ${host}:443@tenant.test\\r\\n${key}\\r\\n`,
  "a list of Hosts": `GET /a HTTP/1.1\\r\\nHost: ${host},tenant.test\\r\\n${key}\\r\\n`,
  "two words in Host": `GET /a HTTP/1.1\\r\\nHost: ${host} tenant.test\\r\\n${key}\\r\\n`,
  "a NUL in Host": `GET /a HTTP/1.1\\r\\nHost: ${host}\\x00.tenant.test\\r\\n${key}\\r\\n`,
  "a Host under the allowed one": `GET /a HTTP/1.1\\r\\nHost: a.${host}\\r\\n${key}\\r\\n`,
  "no Host": `GET /a HTTP/1.1\\r\\n${key}\\r\\n`,
  "an empty Host": `GET /a HTTP/1.1\\r\\nHost: \\r\\n${key}\\r\\n`,
  "HTTP/0.9": `GET /a\\r\\n${smuggled}`,
  "HTTP/2 by prior knowledge": `PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n${smuggled}`,
  "an empty line first": `\\r\\n${smuggled}`,
  "bare line feeds": `GET /a HTTP/1.1\\nHost: ${host}\\nAuthorization: Bearer \${SECRET}\\n\\n`,
  "a header without a name": `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\n: \${SECRET}\\r\\n\\r\\n`,
  "a header whose name holds a space": `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\nX Y: \${SECRET}\\r\\n\\r\\n`,
  "in the method": `\${SECRET} /a HTTP/1.1\\r\\nHost: ${host}\\r\\n\\r\\n`,
  "in the version": `GET /a HTTP/\${SECRET}\\r\\nHost: ${host}\\r\\n\\r\\n`,
  "in the name of a header": `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\n\${SECRET}: x\\r\\n\\r\\n`,
  "in Host": `GET /a HTTP/1.1\\r\\nHost: \${SECRET}\\r\\n\\r\\n`,
  "E1: in Cookie": `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\nCookie: s=\${SECRET}\\r\\n\\r\\n`,
  "E1: in Referer": `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\nReferer: https://x/\${SECRET}\\r\\n\\r\\n`,
  "E1: in X-Forwarded-For": `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\nX-Forwarded-For: \${SECRET}\\r\\n\\r\\n`,
  "E1: in User-Agent": `GET /a HTTP/1.1\\r\\nHost: ${host}\\r\\nUser-Agent: \${SECRET}\\r\\n\\r\\n`,
  "E1: in the fragment of a target": `GET /a#\${SECRET} HTTP/1.1\\r\\nHost: ${host}\\r\\n\\r\\n`,
  "E1: in the query": `GET /a?k=\${SECRET} HTTP/1.1\\r\\nHost: ${host}\\r\\n\\r\\n`,
};

/** How often the server says something to it: at each empty line, whatever it is the end of. */
function answers(shape: string): number {
  return (
    shape
      .replaceAll("\\r", "\r")
      .replaceAll("\\n", "\n")
      .split(/\r?\n\r?\n/).length - 1
  );
}

for (const cut of ["in one record", "the secret's part in a record of its own"] as const) {
  test(`D6, E1: ${Object.keys(shapes).length} requests that could be read in two ways, ${cut}`, async () => {
    const value = makeSecret(51);
    const scripts = Object.values(shapes).map((shape) => {
      const at = shape.search(/GET \/b|Authorization:|\$\{SECRET\}/);
      const cuts = cut === "in one record" || at === 0 ? [shape] : [shape.slice(0, at), shape.slice(at)];
      return [...cuts.flatMap((part) => [`say ${part}`, "send"]), `expect ${answers(shape)}`];
    });
    const { said, outcome } = await speakAll(scripts, secretsOf(value));
    const taken = Object.keys(shapes).filter((_, at) => occurrences(said[at] ?? "", value) > 0);
    assert.deepEqual(taken, []);
    assert.deepEqual(
      said.map((text) => timesIn(text, "kloak:")),
      said.map(() => 1),
    );
    assert.equal(audited(outcome.audit)["substituted SECRET"], undefined);
    const reasons = new Set(outcome.audit.map(({ reason }) => reason));
    for (const reason of ["unparsable-request", "host-not-allowed", "slot-not-allowed"])
      assert.ok(reasons.has(reason as never), reason);
  });
}

test("E2: twenty times in one request, in header and path, encoded and not", async () => {
  const value = makeSecret(51);
  const script = [
    `say ${request(Array.from({ length: 20 }, (_, i) => `X-${i}: \${SECRET}\\r\\n`).join(""))}`,
    "send",
    "expect 1",
  ];
  const { said, outcome } = await speakAll([script], secretsOf(value));
  assert.equal(timesIn(said[0] ?? "", value), 1);
  assert.equal(timesIn(said[0] ?? "", "kloak:"), 19);
  const { "substituted SECRET": substituted, "refused second-occurrence SECRET": refused = 0 } = audited(outcome.audit);
  assert.equal(substituted, 1);
  assert.ok(refused >= 1);
});

test("F2: 50 connections one after the other from one port", async () => {
  const value = makeSecret(51);
  const outcome = await world.kloak({
    secrets: secretsOf(value),
    command: ["python3", program("ports.py"), ca, url, "50"],
    options: quiet,
  });
  const { requests } = await world.server.take();
  assert.deepEqual({ stderr: outcome.stderr, status: outcome.status }, { stderr: "", status: 0 });
  assert.equal(requests.filter((one) => header(one, "authorization") === `Bearer ${value}`).length, 50);
  assert.deepEqual(audited(outcome.audit), { "substituted SECRET": 50 });
});
