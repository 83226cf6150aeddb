/* The other commands, as a user calls them: what they print, and their exit status. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { huffmanBits } from "../../src/placeholder/index.ts";
import { kloak, Running } from "./kloak.ts";

const directory = mkdtempSync(join(tmpdir(), "kloak-commands-"));
after(() => rmSync(directory, { recursive: true, force: true }));
const file = (name: string, text: string): string => {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
};

const node = process.execPath;
const outcomes: readonly {
  readonly args: readonly string[];
  readonly input?: string;
  readonly status: number;
  readonly stdout?: RegExp;
  readonly stderr?: RegExp;
}[] = [
  { args: ["hooks", node], status: 0, stdout: /openssl 3\.[\s\S]*EVP_CipherUpdate[\s\S]*All TLS code .* is hooked/ },
  { args: ["hooks", "--json", node], status: 0, stdout: /"coverage": "covered"/ },
  {
    args: ["hooks", "/usr/bin/wget"],
    status: 0,
    stdout: /gnutls 3\.[\s\S]*AES-GCM encrypt[\s\S]*All TLS code .* is hooked/,
  },
  { args: ["hooks", "/usr/bin/tstclnt"], status: 1, stdout: /libssl3[\s\S]*Kloak does not hook/ },
  { args: ["hooks", "/nonexistent"], status: 1, stderr: /^kloak: \/nonexistent is no file; give the path/ },
  { args: ["hooks", "4194305"], status: 1, stderr: /^kloak: Process 4194305 cannot be looked at/ },
  { args: ["hooks", String(process.pid)], status: 0, stdout: /All TLS code .* is hooked/ },
  { args: ["placeholder"], input: "short", status: 1, stderr: /5 bytes; a placeholder needs at least 8/ },
  { args: ["placeholder"], input: "", status: 1, stderr: /the value is empty; give it a value/ },
  { args: ["placeholder"], input: "abcdefgh\0abcdefgh", status: 1, stderr: /byte 9 of the value is/ },
  { args: ["placeholder"], input: "x".repeat(4097), status: 1, stderr: /4097 bytes/ },
  { args: ["audit", "--since", "yesterday"], status: 1, stderr: /is no time; use 90s/ },
  { args: ["audit", "--outcome", "denied"], status: 1, stderr: /"denied" is unknown; use substituted/ },
  { args: ["audit", "--file", "/nonexistent"], status: 1, stderr: /cannot be read \(ENOENT\); name the file/ },
  { args: ["audit", "--fil", "x"], status: 1, stderr: /unknown option '--fil'\s+\(Did you mean --file\?\)/ },
  { args: ["secrets", "validate", "/nonexistent"], status: 1, stdout: /^\/nonexistent:1: .*check the path/ },
];
for (const { args, input = "", status, stdout, stderr } of outcomes) {
  test(`kloak ${args.join(" ")} ${JSON.stringify(input.slice(0, 20))} exits with ${status}`, async () => {
    const outcome = await kloak(args, { input });
    assert.equal(outcome.status, status, outcome.stderr);
    if (stdout !== undefined) assert.match(outcome.stdout, stdout);
    if (stderr === undefined) assert.equal(outcome.stderr, "");
    else assert.match(outcome.stderr, stderr);
  });
}

for (const [value, prefix] of [
  ["sk-live-xyz123abc456", ""],
  ["sk-live-xyz123abc456", "sk-live-"],
  ["q".repeat(4096), ""],
] as const) {
  test(`kloak placeholder keeps the shape of ${value.length} bytes, prefix "${prefix}"`, async () => {
    const options = prefix === "" ? [] : ["--prefix", prefix];
    const { stdout, status } = await kloak(["placeholder", ...options], { input: `${value}\n` });
    const placeholder = stdout.trimEnd();
    assert.equal(status, 0);
    assert.ok(placeholder.startsWith(`${prefix}kloak:`));
    assert.equal(placeholder.length, value.length);
    assert.equal(huffmanBits(Buffer.from(placeholder)), huffmanBits(Buffer.from(value)));
  });
}

test("kloak secrets validate: a line a finding, file:line, object, remedy; silent when all is well", async () => {
  const good = file("good.yaml", "secrets:\n  KEY:\n    value: { env: KEY }\n    hosts: a.test\n");
  const bad = file("bad.yaml", "secrets:\n  KEY:\n    value: { env: KEY }\n    hosts: a.test\n    prot: 443\n");
  const manifest = file(
    "secret.yaml",
    'apiVersion: v1\nkind: Secret\nmetadata:\n  name: stripe\n  namespace: shop\n  labels:\n    getkloak.io/enabled: "true"\nstringData:\n  token: sk-live-xyz123abc456\n',
  );
  assert.deepEqual(await kloak(["secrets", "validate", good]), { status: 0, signal: null, stdout: "", stderr: "" });
  const { status, stdout } = await kloak(["secrets", "validate", good, bad, manifest]);
  assert.equal(status, 1);
  const lines = stdout.trimEnd().split("\n");
  assert.equal(lines[0], `${bad}:5: secret KEY: unknown key "prot"; did you mean "ports"?`);
  assert.match(lines[1] ?? "", new RegExp(`^${manifest}:\\d+: Secret shop/stripe: .*hosts.*; `));
  const json = await kloak(["secrets", "validate", "--json", bad]);
  assert.deepEqual(
    (JSON.parse(json.stdout) as { findings: { line: number }[] }).findings.map(({ line }) => line),
    [5],
  );
});

test("kloak status shows the runs of this host, for people and as JSON", async () => {
  const running = new Running(["run", "--", "sh", "-c", "echo up; read line"]);
  await running.says("up");
  const id = running.record?.id;
  const text = await kloak(["status"]);
  assert.match(text.stdout, new RegExp(`^${id}  running    pid ${running.pid}  since \\d{4}-.*  sh$`, "m"));
  const json = JSON.parse((await kloak(["status", "--json"])).stdout) as { runs: Record<string, unknown>[] };
  const { startedAt, ...run } = json.runs.find((each) => each["id"] === id) ?? {};
  assert.equal(typeof startedAt, "string");
  assert.deepEqual(run, { id, state: "running", pid: running.pid, command: "sh", interface: `kloak${id}h` });
  running.process.stdin?.end("\n");
  await running.ended;
  assert.doesNotMatch((await kloak(["status"])).stdout, new RegExp(`^${id} .*pid ${running.pid} `, "m"));
});

test("kloak doctor says what is missing, and exits with 1", async () => {
  const within = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
  const { status, stdout } = await kloak(["doctor", "--json"], { within });
  const { fit, checks } = JSON.parse(stdout) as { fit: boolean; checks: Record<string, string>[] };
  assert.deepEqual([status, fit], [1, false]);
  const missing = checks.filter((check) => check["status"] === "missing");
  assert.deepEqual(
    missing.map(({ name }) => name),
    ["capabilities"],
  );
  assert.match(missing[0]?.["remedy"] ?? "", /run it as root/);
});

/** Records of now and of a day ago, as a run writes them. */
const record = (age: number, outcome: string, secret: string | null, pid: number, command: string) =>
  `${JSON.stringify({
    ...{ time: new Date(Date.now() - age).toISOString(), outcome, reason: outcome === "refused" ? "no-sni" : null },
    ...{ secret, workload: { kind: "run", pid, command } },
    destination: { host: "a.test", address: "192.0.2.1", port: 443, attestation: null },
    ...{ slot: "header:authorization", encoding: "raw", protocol: "http/1.1" },
    tls: { version: "1.3", cipher: "aes-256-gcm", stack: "openssl" },
  })}\n`;
const day = 86_400_000;
const trail = [
  record(2 * day, "substituted", "OLD", 1, "curl"),
  record(0, "substituted", "KEY", 2, "curl"),
  record(0, "refused", "KEY", 3, "python3"),
  record(0, "unprotected", null, 4, "wget"),
];
const filters: readonly (readonly [options: readonly string[], wanted: readonly number[]])[] = [
  [[], [0, 1, 2, 3]],
  [
    ["--secret", "KEY"],
    [1, 2],
  ],
  [["--secret", "O*"], [0]],
  [
    ["--workload", "curl"],
    [0, 1],
  ],
  [["--workload", "3"], [2]],
  [["--outcome", "refused"], [2]],
  [
    ["--outcome", "refused,unprotected"],
    [2, 3],
  ],
  [
    ["--since", "1d"],
    [1, 2, 3],
  ],
  [["--since", "10m", "--secret", "KEY", "--outcome", "substituted"], [1]],
];
for (const [options, wanted] of filters) {
  test(`kloak audit ${options.join(" ")}`, async () => {
    const path = file("trail", trail.join(""));
    const json = await kloak(["audit", "--file", path, "--json", ...options]);
    assert.equal(json.stdout, wanted.map((index) => trail[index]).join(""), json.stderr);
    const text = await kloak(["audit", ...options], { input: trail.join("") });
    assert.equal(text.stdout.split("\n").length - 1, wanted.length, "from standard input, a line each");
  });
}

test("kloak audit --follow goes on with what is appended, until Ctrl-C", async () => {
  const path = file("followed", trail[0] ?? "");
  const running = new Running(["audit", "--file", path, "--follow", "--outcome", "substituted"]);
  await running.says("OLD");
  appendFileSync(path, `${trail[2]}${trail[1]}`);
  await running.says("KEY");
  assert.equal(running.stdout.split("\n").length - 1, 2);
  running.process.kill("SIGINT");
  assert.equal((await running.ended).status, 0);
});

test("every reason of the contract has its page", async () => {
  const { reasons } = await import("../../src/audit/index.ts");
  const page = readFileSync(join(import.meta.dirname, "../../docs/reasons.md"), "utf8");
  const titles = [...page.matchAll(/^### (\S+)\n\nCause: /gm)].map(([, title]) => title);
  assert.deepEqual(new Set(titles), new Set(reasons));
});

test("kloak audit at a terminal, with no trail named, says which to name", () => {
  const command = `${join(import.meta.dirname, "../../bin/kloak")} audit`;
  const { stdout } = spawnSync("script", ["-qec", command, "/dev/null"], { encoding: "utf8", input: "" });
  assert.match(stdout, /no trail is named; give --file FILE/);
});
