import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { parseSecretOption } from "./secret-option.ts";
import { parseValueSource, readValue, type ValueSource } from "./value-source.ts";

const directory = mkdtempSync(join(tmpdir(), "kloak-value-"));
after(() => rmSync(directory, { recursive: true }));

const object = "secret KEY";
const value = "sk-live-xyz123abc456";

async function read(source: ValueSource, env: Record<string, string> = {}): Promise<string> {
  const secret = await readValue(source, { object, directory, env: { PATH: process.env["PATH"] ?? "", ...env } });
  return secret.reveal().toString();
}

function file(name: string, content: string): ValueSource {
  writeFileSync(join(directory, name), content);
  return { kind: "file", path: name };
}

test("a value comes from a variable, as it is", async () => {
  assert.equal(await read({ kind: "env", name: "KEY" }, { KEY: value }), value);
  assert.equal(await read({ kind: "env", name: "KEY" }, { KEY: `${value}\n` }), `${value}\n`);
});

for (const [what, content, expected] of [
  ["no line end", value, value],
  ["one line end, which is removed", `${value}\n`, value],
  ["CR LF, which is removed", `${value}\r\n`, value],
  ["two line ends, of which one is removed", `${value}\n\n`, `${value}\n`],
  ["blanks, which are kept", ` ${value} `, ` ${value} `],
] as const) {
  test(`a file and a command with ${what}`, async () => {
    assert.equal(await read(file("key", content)), expected);
    assert.equal(await read({ kind: "command", command: ["printf", "%s", content] }), expected);
  });
}

test("a command is run without a shell, with its arguments as they are, in the directory of the file", async () => {
  assert.equal(await read({ kind: "command", command: ["printf", "%s", "$HOME `id`; x"] }), "$HOME `id`; x");
  assert.equal(await read({ kind: "command", command: ["pwd"] }), directory);
});

test("cmd: is a line for the shell", async () => {
  assert.equal(await read(parseValueSource("cmd:echo a-b-c-d | tr a-d A-D"), {}), "A-B-C-D");
});

const failures: readonly (readonly [what: string, source: () => ValueSource, message: RegExp])[] = [
  ["no variable", () => ({ kind: "env", name: "NOPE" }), /environment variable NOPE is not set; set it/],
  ["empty variable", () => ({ kind: "env", name: "EMPTY" }), /environment variable EMPTY is empty/],
  ["no file", () => ({ kind: "file", path: "nope" }), /file nope does not exist; check path/],
  ["a directory", () => ({ kind: "file", path: "." }), /file \. is a directory/],
  ["empty file", () => file("empty", "\n"), /file empty is empty/],
  ["endless file", () => ({ kind: "file", path: "/dev/zero" }), /more than 16384 bytes/],
  [
    "no program",
    () => ({ kind: "command", command: ["/no/such/program"] }),
    /"\/no\/such\/program" was not found; check/,
  ],
  [
    "failing",
    () => ({ kind: "command", command: ["sh", "-c", `printf ${value}; exit 3`] }),
    /status 3; run it by hand/,
  ],
  ["killed", () => ({ kind: "command", command: ["sh", "-c", "kill -9 $$"] }), /SIGKILL/],
  ["silent", () => ({ kind: "command", command: ["true"] }), /command "true" is empty/],
  ["endless", () => ({ kind: "command", command: ["yes"] }), /more than 16384 bytes/],
];

for (const [what, source, message] of failures) {
  test(`refused, naming object and source: ${what}`, async () => {
    await assert.rejects(read(source(), { EMPTY: "" }), (error: Error) => {
      assert.match(error.message, message);
      assert.ok(error.message.startsWith("secret KEY: "), error.message);
      assert.ok(!error.message.includes(value));
      return true;
    });
  });
}

test("waiting for a command ends with the signal", async () => {
  const controller = new AbortController();
  const source: ValueSource = { kind: "command", command: ["tail", "-f", "/dev/null"] };
  const reading = readValue(source, { object, signal: controller.signal });
  controller.abort();
  await assert.rejects(reading);
});

test("--secret NAME@HOSTS[=SOURCE]", () => {
  const parse = (text: string) => {
    const { name, source, policy } = parseSecretOption(text);
    return { name, source, hosts: policy.hosts.length };
  };
  assert.deepEqual(parse("KEY@api.openai.com"), { name: "KEY", source: { kind: "env", name: "KEY" }, hosts: 1 });
  assert.deepEqual(parse("KEY@a.com,*.b.com:443=env:OTHER"), {
    name: "KEY",
    source: { kind: "env", name: "OTHER" },
    hosts: 2,
  });
  assert.deepEqual(parse("KEY@[2001:db8::1]:443=file:a=b"), {
    name: "KEY",
    source: { kind: "file", path: "a=b" },
    hosts: 1,
  });
  assert.deepEqual(parse("KEY@a.com=cmd:pass show x@y"), {
    name: "KEY",
    source: { kind: "command", command: ["sh", "-c", "pass show x@y"] },
    hosts: 1,
  });
  assert.equal(parseSecretOption("KEY@a.com", { attest: "dns", ca: "ca.pem" }).policy.attest, "dns");
});

const options: readonly (readonly [string, RegExp])[] = [
  ["KEY", /--secret KEY: no hosts.*--secret KEY@api\.example\.com/],
  ["KEY@", /no hosts/],
  ["KEY=env:KEY", /no hosts/],
  ["KEY@*", /--secret KEY: host "\*" would allow every host/],
  ["@a.com", /"" is no name for a variable.*NAME@HOSTS/],
  ["MY-KEY@a.com", /"MY-KEY" is no name/],
  ["KEY@a.com=sk-live-xyz123abc456", /--secret KEY: the source has no kind; write env:VAR, file:PATH or cmd:COMMAND/],
  ["KEY@a.com=vault:x", /"vault:" is unknown/],
  ["KEY@a.com=env:", /"env:" is unknown or empty/],
  ["KEY@a.com=", /no kind/],
];

for (const [text, message] of options) {
  test(`--secret ${text} is refused with the fix, and without the value`, () => {
    assert.throws(
      () => parseSecretOption(text),
      (error: Error) => {
        assert.match(error.message, message);
        assert.ok(!error.message.includes("sk-live"));
        return true;
      },
    );
  });
}
