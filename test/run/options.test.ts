/* Every option of `kloak run`, and every key of kloak.yaml, by what it changes for the server, the trail or the user. */
import assert from "node:assert/strict";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import type { AuditRecord } from "../../src/audit/index.ts";
import { withHostsFile } from "../../src/lab/names.ts";
import { count, header } from "../support/requests.ts";
import { buildSpeak, host, makeSecret, otherHost, World } from "../support/world.ts";
import { kloak as start, type Outcome, Running, traces } from "./kloak.ts";

const world = await World.create((certificates) => [
  { name: "plain", certificate: certificates.good },
  { name: "untrusted", certificate: certificates.untrusted },
  { name: "raw 1.2", kind: "raw", certificate: certificates.good, version: "TLSv1.2" },
]);
after(() => world.close());
const value = makeSecret(51);
const within = withHostsFile(world.hostsFile, []);
const ca = ["--ca", world.authority.caFile];

const kloak = (args: readonly string[], env: NodeJS.ProcessEnv = { KEY: value }, cwd = world.directory) =>
  start(args, { within, env, cwd });

/** Sends $KEY in X-Api-Key; `-k`, since the destination is Kloak's to judge here. */
const ask = (listener = "plain", name = host) =>
  `curl -sSfk -o /dev/null -H "X-Api-Key: $KEY" "${world.url(listener, name)}/"`;

async function keys(): Promise<string[]> {
  const { requests } = await world.server.take();
  return requests.map((request) => header(request, "x-api-key"));
}

const records = (text: string) =>
  text
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as AuditRecord);

function succeeded(outcome: Outcome): void {
  assert.deepEqual({ status: outcome.status, stderr: outcome.stderr }, { status: 0, stderr: "" });
}

const file = join(world.directory, "value");
writeFileSync(file, `${value}\n`, { mode: 0o600 });
const sources: readonly (readonly [source: string, env: Record<string, string>])[] = [
  ["", { KEY: value }],
  ["=env:ANOTHER", { ANOTHER: value }],
  [`=file:${file}`, {}],
  ["=file:./value", {}],
  [`=cmd:cat ${file} | tr -d x`, {}],
  ['=cmd:printf %s "$ANOTHER"', { ANOTHER: value }],
];
for (const [source, env] of sources) {
  test(`--secret KEY@HOST${source.replace(world.directory, "…")}`, async () => {
    const plain = value.replaceAll("x", "");
    const wanted = source.includes("tr -d x") ? plain : value;
    succeeded(await kloak(["run", ...ca, "--secret", `KEY@${host}${source}`, "--", "sh", "-c", ask()], env));
    assert.deepEqual(await keys(), [wanted]);
  });
}

test("--secret takes a list of hosts with ports", async () => {
  const port = world.server.port("plain");
  const secret = `KEY@elsewhere.test, *.kloak.test:${port}`;
  succeeded(await kloak(["run", ...ca, "--secret", secret, "--", "sh", "-c", `${ask()}; ${ask("plain", otherHost)}`]));
  assert.deepEqual(await keys(), [value, value]);
});

test("--secret may be repeated", async () => {
  const secrets = ["--secret", `KEY@${host}`, "--secret", `OTHER@${host}`];
  const script = `${ask()}; KEY=$OTHER; ${ask()}`;
  const other = makeSecret(30);
  succeeded(await kloak(["run", ...ca, ...secrets, "--", "sh", "-c", script], { KEY: value, OTHER: other }));
  assert.deepEqual(await keys(), [value, other]);
});

const folder = join(world.directory, "folder");
mkdirSync(folder);
copyFileSync(world.authority.caFile, join(folder, "ca.pem"));
writeFileSync(join(folder, "key"), value, { mode: 0o600 });

/** A kloak.yaml with `settings` for KEY. */
function config(settings: Record<string, unknown>, name = "kloak.yaml"): string {
  const usual = { value: { file: "./key" }, hosts: host, ca: "./ca.pem" };
  const path = join(folder, name);
  writeFileSync(path, JSON.stringify({ secrets: { KEY: { ...usual, ...settings } } }));
  return path;
}

test("kloak.yaml of the working directory is read, with paths from where it lies", async () => {
  config({});
  succeeded(await kloak(["run", "--", "sh", "-c", ask()], {}, folder));
  assert.deepEqual(await keys(), [value]);
});

test("--config names another, and what lies in the working directory does not count", async () => {
  const elsewhere = join(world.directory, "elsewhere");
  mkdirSync(elsewhere);
  writeFileSync(join(elsewhere, "kloak.yaml"), "not read: [\n");
  const outcome = await kloak(["run", "--config", config({}, "named.yaml"), "--", "sh", "-c", ask()], {}, elsewhere);
  succeeded(outcome);
  assert.deepEqual(await keys(), [value]);
});

test("--secret comes before the secret of the same name in the file", async () => {
  const other = makeSecret(20);
  const options = ["--config", config({ hosts: "nowhere.test" }), ...ca, "--secret", `KEY@${host}`];
  succeeded(await kloak(["run", ...options, "--", "sh", "-c", ask()], { KEY: other }));
  assert.deepEqual(await keys(), [other]);
});

/** What arrives, and what the trail says, with one setting other than usual. */
const settings: readonly {
  readonly name: string;
  readonly settings: Record<string, unknown>;
  readonly script?: string;
  readonly arrives: "secret" | "placeholder";
  readonly trail: string;
}[] = [
  { name: "value: env", settings: { value: { env: "FROM" } }, arrives: "secret", trail: "substituted certificate" },
  {
    name: "value: command",
    settings: { value: { command: ["cat", "./key"] } },
    arrives: "secret",
    trail: "substituted certificate",
  },
  { name: "hosts: a list", settings: { hosts: ["a.test", host] }, arrives: "secret", trail: "substituted certificate" },
  { name: "hosts: another", settings: { hosts: otherHost }, arrives: "placeholder", trail: "refused host-not-allowed" },
  {
    name: "ports",
    settings: { ports: [1, world.server.port("plain")] },
    arrives: "secret",
    trail: "substituted certificate",
  },
  { name: "ports: others", settings: { ports: [1] }, arrives: "placeholder", trail: "refused port-not-allowed" },
  {
    name: "in: the header",
    settings: { in: "header:x-api-key" },
    arrives: "secret",
    trail: "substituted certificate",
  },
  {
    name: "in: another header",
    settings: { in: ["header:x-other", "query"] },
    arrives: "placeholder",
    trail: "refused slot-not-allowed",
  },
  { name: "no ca", settings: { ca: undefined }, arrives: "placeholder", trail: "refused attestation-failed" },
  {
    name: "attest: dns, whatever the certificate",
    settings: { attest: "dns", ca: undefined },
    script: ask("untrusted"),
    arrives: "secret",
    trail: "substituted dns",
  },
  {
    name: "attest: none, for an address",
    settings: { attest: "none", hosts: world.namespace.ipv4.inside, ca: undefined },
    script: ask("untrusted", world.namespace.ipv4.inside),
    arrives: "secret",
    trail: "substituted none",
  },
  {
    name: "attest: certificate, for an address",
    settings: { hosts: world.namespace.ipv4.inside },
    script: ask("plain", world.namespace.ipv4.inside),
    arrives: "secret",
    trail: "substituted certificate",
  },
  { name: "proof: record", settings: { proof: "record" }, arrives: "secret", trail: "substituted certificate" },
  { name: "proof: none", settings: { proof: "none" }, arrives: "secret", trail: "substituted certificate" },
];
for (const { name, settings: changed, script = ask(), arrives, trail } of settings) {
  test(`kloak.yaml: ${name}`, async () => {
    const audit = join(world.directory, `audit ${name}`);
    const options = ["--quiet", "--config", config(changed), "--audit", audit];
    const outcome = await kloak(["run", ...options, "--", "sh", "-c", script], { FROM: value });
    succeeded(outcome);
    const [key = ""] = await keys();
    assert.equal(key === value ? "secret" : key.startsWith("kloak:") ? "placeholder" : key, arrives);
    const trails = records(readFileSync(audit, "utf8"));
    const said = trails.map(({ outcome, reason, destination }) => `${outcome} ${reason ?? destination.attestation}`);
    assert.deepEqual(said, [trail]);
  });
}

test("kloak.yaml: prefix is what the placeholder begins with", async () => {
  const outcome = await kloak([
    "run",
    "--config",
    config({ prefix: "sk-live-" }),
    "--",
    "sh",
    "-c",
    `echo $KEY; ${ask()}`,
  ]);
  succeeded(outcome);
  assert.match(outcome.stdout, /^sk-live-kloak:/);
  assert.equal(outcome.stdout.length, value.length + 1);
  assert.deepEqual(await keys(), [value]);
});

for (const [proof, wanted] of [
  ["flow", "refused unproven-flow"],
  ["record", "substituted null"],
] as const) {
  test(`proof: ${proof} after a renegotiation: ${wanted}`, async () => {
    const request = `say GET / HTTP/1.1\\r\\nHost: ${host}\\r\\nX-Api-Key: \${KEY}\\r\\n\\r\\n`;
    const plain = request.replace("X-Api-Key: ${KEY}\\r\\n", "");
    const input = [plain, "send", "expect 1", "renegotiate", request, "send", "expect 1", ""].join("\n");
    const speak = [buildSpeak(), "--sni", host, world.namespace.ipv4.inside, String(world.server.port("raw 1.2"))];
    const outcome = await world.kloak({ secrets: { KEY: { value, hosts: host, proof } }, command: speak, input });
    await world.server.take({ closed: "raw 1.2" });
    assert.deepEqual(
      outcome.audit.map(({ outcome, reason }) => `${outcome} ${reason}`),
      [wanted],
    );
  });
}

for (const [mode, secret, listener, name, wanted] of [
  ["certificate", host, "untrusted", host, "refused attestation-failed"],
  ["dns", host, "untrusted", host, "substituted dns"],
  ["none", world.namespace.ipv4.inside, "untrusted", world.namespace.ipv4.inside, "substituted none"],
] as const) {
  test(`--attest ${mode}: ${wanted}`, async () => {
    const audit = join(world.directory, `attest-${mode}`);
    const options = ["--attest", mode, "--quiet", "--audit", audit, "--secret", `KEY@${secret}`];
    succeeded(await kloak(["run", ...options, "--", "sh", "-c", ask(listener, name)]));
    await world.server.take();
    const said = records(readFileSync(audit, "utf8")).map(
      ({ outcome, reason, destination }) => `${outcome} ${reason ?? destination.attestation}`,
    );
    assert.deepEqual(said, [wanted]);
  });
}

test("--attest none for a name is refused before anything starts", async () => {
  const outcome = await kloak(["run", "--attest", "none", "--secret", `KEY@${host}`, "--", "echo", "started"]);
  assert.deepEqual([outcome.status, outcome.stdout], [125, ""]);
  assert.match(outcome.stderr, /--secret KEY: attest: none is for addresses only/);
});

/** The first line is what the contract's example has, with what varies taken out. */
const destination = (name: string) => ({
  host: name,
  address: world.namespace.ipv4.inside,
  port: world.server.port("plain"),
});
const tls = { version: "1.3", cipher: "aes-256-gcm", stack: "openssl" };

test("audit records have the shape of the contract, and hold neither secret nor placeholder", async () => {
  const audit = join(world.directory, "shape");
  const script = `cd /; ${ask()}; ${ask("plain", otherHost)}; tstclnt -D -h ${host} -p 1 </dev/null; echo $KEY`;
  const outcome = await kloak(["run", ...ca, "--audit", audit, "--secret", `KEY@${host}`, "--", "sh", "-c", script]);
  await world.server.take();
  const text = readFileSync(audit, "utf8");
  assert.ok(!text.includes(value) && !text.includes(outcome.stdout.trim()), "neither secret nor placeholder");
  // The kernel's records and the gate's come by two ways: in the order of what they say, not of the file.
  const rank = (line: string) => order.indexOf((JSON.parse(line) as AuditRecord).outcome);
  const order = ["substituted", "refused", "unprotected"];
  const lines = text
    .trimEnd()
    .split("\n")
    .sort((one, other) => rank(one) - rank(other));
  const pids = lines.map((line) => (JSON.parse(line) as { workload: { pid: number } }).workload.pid);
  const [first = "", second = "", third = ""] = lines.map((line, index) =>
    line
      .replace(/"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"/, '"time":"T"')
      .replace(`"pid":${pids[index]}`, '"pid":4711'),
  );
  const common = { slot: "header:x-api-key", encoding: "raw", protocol: "http/1.1", tls };
  const workload = { kind: "run", pid: 4711, command: "curl" };
  assert.equal(
    first,
    JSON.stringify({
      ...{ time: "T", outcome: "substituted", reason: null, secret: "KEY", workload },
      ...{ destination: { ...destination(host), attestation: "certificate" }, ...common },
    }),
  );
  assert.equal(
    second,
    JSON.stringify({
      ...{ time: "T", outcome: "refused", reason: "host-not-allowed", secret: "KEY", workload },
      ...{ destination: { ...destination(otherHost), attestation: null }, ...common },
    }),
  );
  const { detail, ...unprotected } = JSON.parse(third) as AuditRecord;
  assert.match(detail ?? "", /^tstclnt: TLS code of .*libssl3/);
  assert.deepEqual(unprotected, {
    ...{ time: "T", outcome: "unprotected", reason: null, secret: null },
    workload: { kind: "run", pid: 4711, command: "tstclnt" },
    destination: { host: null, address: null, port: null, attestation: null },
    ...{ slot: null, encoding: null, protocol: null },
    tls: { version: null, cipher: null, stack: "nss" },
  });
  assert.equal(lines.length, 3);
});

test("--audit appends, and the file is its owner's alone", async () => {
  const audit = join(world.directory, "appended");
  for (const round of [1, 2]) {
    succeeded(await kloak(["run", ...ca, "--audit", audit, "--secret", `KEY@${host}`, "--", "sh", "-c", ask()]));
    assert.equal(records(readFileSync(audit, "utf8")).length, round);
  }
  const seen = await kloak(["run", "--user", "nobody", "--", "cat", audit]);
  assert.match(seen.stderr, /Permission denied/);
  await world.server.take();
});

const refused = ["--secret", `KEY@${otherHost}`, "--", "sh", "-c", ask()];
const notice = new RegExp(`KEY went out to ${host} port \\d+ as its placeholder: host-not-allowed`);
const manners: readonly (readonly [options: readonly string[], check: (stderr: string) => void])[] = [
  [[], (stderr) => assert.match(stderr, new RegExp(`^kloak: warning: ${notice.source}\\n$`))],
  [["--quiet"], (stderr) => assert.equal(stderr, "")],
  [
    ["--json"],
    (stderr) => {
      const { time, level, message, ...more } = JSON.parse(stderr) as Record<string, string>;
      assert.match(time ?? "", /^\d{4}-.*Z$/);
      assert.deepEqual([level, more], ["warning", {}]);
      assert.match(message ?? "", notice);
    },
  ],
  [["--json", "--quiet"], (stderr) => assert.equal(stderr, "")],
  [
    ["--verbose"],
    (stderr) => {
      assert.match(stderr, notice);
      assert.match(stderr, /^kloak: data plane: .*placeholders seen 1/m);
    },
  ],
  [
    ["--audit", "-"],
    (stderr) => assert.deepEqual(count(records(stderr).map(({ reason }) => reason ?? "")), { "host-not-allowed": 1 }),
  ],
];
for (const [options, check] of manners) {
  test(`how kloak speaks of a refusal: ${options.join(" ") || "without options"}`, async () => {
    const outcome = await kloak(["run", ...ca, ...options, ...refused]);
    assert.equal(outcome.status, 0, outcome.stderr);
    check(outcome.stderr);
    await world.server.take();
  });
}

test("eight runs that start at once each do their work and leave nothing", async () => {
  const values = Array.from({ length: 8 }, () => makeSecret(40));
  const runs = values.map((each) => {
    const args = ["run", ...ca, "--secret", `KEY@${host}`, "--", "sh", "-c", `echo up; read line; ${ask()}`];
    return new Running(args, { within, env: { KEY: each } });
  });
  for (const run of runs) await run.says("up");
  const left = runs.map(({ record }) => record);
  for (const run of runs) run.process.stdin?.end("\n");
  for (const run of runs) succeeded(await run.ended);
  assert.deepEqual((await keys()).sort(), values.toSorted());
  for (const record of left) assert.deepEqual(await traces(record?.id ?? "", record?.netns), []);
});

test("a run within a run is refused, and says where to start it instead", async () => {
  const inner = ["sh", "-c", 'exec "$0" run -- echo started', join(import.meta.dirname, "../../bin/kloak")];
  const outcome = await kloak(["run", "--", ...inner]);
  assert.deepEqual([outcome.status, outcome.stdout], [125, ""]);
  assert.match(outcome.stderr, /outside of the container, or of the other `kloak run`, that it is in/);
});

test("a command without secrets runs, and needs no configuration", async () => {
  const empty = join(world.directory, "empty");
  mkdirSync(empty);
  chmodSync(empty, 0o755);
  const outcome = await kloak(["run", "--", "sh", "-c", "echo ${KEY:-none}; pwd"], {}, empty);
  assert.deepEqual([outcome.stdout, outcome.stderr], [`none\n${empty}\n`, ""]);
});
