/* Wrong or missing input: the message names the object and the next step, the status is 125, nothing was started. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { checks, type HostFacts, readFacts, requireHost } from "../../src/run/host.ts";
import { kloak, Running } from "./kloak.ts";

const directory = mkdtempSync(join(tmpdir(), "kloak-bad-"));
after(() => rmSync(directory, { recursive: true, force: true }));

const value = "sk-live-0123456789abcdef";
const file = (name: string, text: string): string => {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
};
const config = (name: string, text: string) => ["--config", file(`${name}.yaml`, text)];
const secret = (text: string) => ["--secret", text];
const notPem = file("ca.txt", "no certificate\n");
const brokenPem = file("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
const yaml = (lines: string) => `secrets:\n  KEY:\n    value: { env: KEY }\n    hosts: a.test\n${lines}`;

const refused: readonly (readonly [name: string, options: readonly string[], message: RegExp])[] = [
  ["an unknown option", ["--hostport", "80"], /unknown option '--hostport'\s+\(Did you mean --host-port\?\)/],
  [
    "an unknown key",
    config("key", yaml("    prot: 443\n")),
    /key\.yaml:5: secret KEY: unknown key "prot"; did you mean "ports"/,
  ],
  ["no YAML", config("yaml", "secrets: [\n"), /yaml\.yaml:\d: not valid YAML/],
  [
    "a configuration that is not there",
    ["--config", "/nonexistent/k.yaml"],
    /\/nonexistent\/k\.yaml does not exist; check the path/,
  ],
  [
    "a variable that is not set",
    secret("ABSENT@a.test"),
    /--secret ABSENT: environment variable ABSENT is not set; set it/,
  ],
  ["an empty value", secret("EMPTY@a.test"), /--secret EMPTY: environment variable EMPTY is empty/],
  ["a value too short", secret("SHORT@a.test"), /--secret SHORT: the value has 3 bytes; .*use a longer value/],
  ["a file that is not there", secret("KEY@a.test=file:/nonexistent"), /file \/nonexistent does not exist; check path/],
  ["a command that fails", secret("KEY@a.test=cmd:exit 3"), /command "sh" exited with status 3; run it by hand/],
  [
    "a source of no kind",
    secret(`KEY@a.test=${value}`),
    /the source has no kind; write env:VAR, file:PATH or cmd:COMMAND/,
  ],
  ["no hosts", secret("KEY"), /--secret KEY: no hosts/],
  ["hosts that are no hosts", secret("KEY@exa mple..com"), /--secret KEY: host "exa mple\.\.com"/],
  ["all hosts", secret("KEY@*"), /--secret KEY: host "\*"/],
  [
    "an attestation that is unknown",
    ["--attest", "certifcate", ...secret("KEY@a.test")],
    /--attest .*certifcate.*Allowed choices are certificate, dns, none/,
  ],
  [
    "a CA file that is not there",
    ["--ca", "/nonexistent.pem", ...secret("KEY@a.test")],
    /--ca: file \/nonexistent\.pem does not exist/,
  ],
  [
    "a CA file that holds no certificate",
    ["--ca", notPem, ...secret("KEY@a.test")],
    /--ca: file .*ca\.txt holds no certificate; give certificates in PEM form/,
  ],
  [
    "a CA file with a broken certificate",
    ["--ca", brokenPem, ...secret("KEY@a.test")],
    /--ca: certificate 1 in .*broken\.pem cannot be read/,
  ],
  [
    "an audit file that cannot be written",
    ["--audit", "/nonexistent/audit"],
    /audit file \/nonexistent\/audit cannot be opened/,
  ],
  ["a user that is not there", ["--user", "no-such-user"], /--user: there is no user "no-such-user"/],
  ["a port that is none", ["--publish", "http"], /"http" is no port: give a number from 1 to 65535/],
  ["a port out of range", ["--host-port", "70000"], /"70000" is no port/],
];
const environment = { KEY: value, EMPTY: "", SHORT: "abc" };

for (const [name, options, message] of refused) {
  test(`refused: ${name}`, async () => {
    const running = new Running(["run", ...options, "--", "echo", "started"], { env: environment, input: "" });
    const outcome = await running.ended;
    assert.match(outcome.stderr, message);
    assert.equal(outcome.status, 125);
    assert.equal(outcome.stdout, "");
    assert.ok(!outcome.stderr.includes(value), "the value is in no message");
    assert.equal(running.record, undefined, "nothing is left");
  });
}

test("refused: a value among the command's arguments", async () => {
  const outcome = await kloak(["run", ...secret("KEY@a.test"), "--", "echo", `Bearer ${value}`], { env: environment });
  assert.equal(outcome.status, 125);
  assert.match(outcome.stderr, /Argument 1 of the command holds the value of secret KEY.*read it from variable KEY/);
  assert.ok(!outcome.stderr.includes(value));
});

test("refused: not root", async () => {
  const within = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
  const outcome = await kloak(["run", "--", "echo", "started"], { within });
  assert.equal(outcome.status, 125);
  assert.equal(outcome.stdout, "");
  assert.match(outcome.stderr, /capabilities: 9 missing; run it as root \(sudo\)/);
});

test("messages are JSON on request", async () => {
  const outcome = await kloak(["run", "--json", ...secret("ABSENT@a.test"), "--", "true"]);
  const { level, code, message } = JSON.parse(outcome.stderr);
  assert.deepEqual([level, code], ["error", "source-missing"]);
  assert.match(message, /ABSENT is not set/);
});

const fit = readFacts();
const unfit: readonly (readonly [name: string, facts: Partial<HostFacts>, message: RegExp])[] = [
  ["an old kernel", { kernel: "5.15.0-91-generic" }, /kernel: 5\.15\.0-91-generic; use Linux 6\.1 or later/],
  ["another system", { platform: "darwin" }, /system: darwin, x64; use Linux/],
  ["no BTF", { btf: false }, /type information \(BTF\): not there; use a kernel built with CONFIG_DEBUG_INFO_BTF=y/],
  [
    "lockdown=confidentiality",
    { lockdown: "confidentiality" },
    /lockdown: confidentiality; boot with lockdown=integrity/,
  ],
  ["no nft", { programs: new Set(["ip", "nsenter", "getent"]) }, /program nft: not there; install package nftables/],
  ["no build", { built: new Set() }, /build: not there; run `npm run setup`/],
  [
    "no fanotify permissions",
    { config: new Map() },
    /CONFIG_BPF_SYSCALL: not there; .* \(and 9 more: `kloak doctor` lists them\)/,
  ],
];
for (const [name, facts, message] of unfit) {
  test(`a host with ${name} is told what to do`, () => {
    assert.throws(() => requireHost({ ...fit, ...facts }), { code: "host-unfit", message });
  });
}

test("every check that is not passed has a remedy", () => {
  const worst: HostFacts = {
    ...{
      platform: "plan9",
      machine: "mips",
      kernel: "2.6.32",
      btf: false,
      capabilities: 0n,
      root: false,
      programs: new Set<string>(),
    },
    ...{
      bpffs: false,
      cgroup2: false,
      config: new Map<string, boolean>(),
      built: new Set<string>(),
      lockdown: "confidentiality",
    },
  };
  for (const check of checks(worst)) assert.ok(check.status !== "ok" && check.remedy, check.name);
});

test("this host passes", () => assert.doesNotThrow(() => requireHost(fit)));

test("kloak doctor says so, line by line, and as JSON", async () => {
  const text = await kloak(["doctor"]);
  assert.equal(text.status, 0, text.stdout);
  assert.match(text.stdout, /^ok +kernel: /m);
  const json = await kloak(["doctor", "--json"]);
  assert.equal(JSON.parse(json.stdout).fit, true);
});

for (const command of ["run", "doctor", "hooks", "placeholder", "secrets validate", "status", "audit", "demo"]) {
  test(`kloak ${command} --help`, async () => {
    const outcome = await kloak([...command.split(" "), "--help"]);
    assert.equal(outcome.status, 0);
    assert.match(outcome.stdout, new RegExp(`^Usage: kloak ${command}`));
  });
}

test("an unknown command is answered with the nearest", async () => {
  const outcome = await kloak(["docter"]);
  assert.equal(outcome.status, 1);
  assert.match(outcome.stderr, /unknown command 'docter'\s+\(Did you mean doctor\?\)/);
});
