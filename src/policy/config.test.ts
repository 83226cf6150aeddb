import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { KloakError } from "../errors.ts";
import { loadConfig, parseConfig } from "./config.ts";
import { ConfigurationError } from "./finding.ts";
import { hostText } from "./hosts.ts";

test("all settings of a secret", () => {
  const [secret, other, ...more] = parseConfig(
    `secrets:
  OPENAI_API_KEY:
    value: { env: OPENAI_API_KEY }
    hosts: api.openai.com
    ports: [443]
    in: header
    attest: certificate
    ca: ./ca.pem
    prefix: sk-
    proof: flow
  OTHER:
    value: { command: [op, read, "op://dev/openai/key"] }
    hosts: [a.com, "*.b.com:8443"]
`,
    "/etc/kloak/kloak.yaml",
  );
  assert.equal(more.length, 0);
  assert.equal(secret?.name, "OPENAI_API_KEY");
  assert.deepEqual(secret?.source, { kind: "env", name: "OPENAI_API_KEY" });
  assert.deepEqual(secret?.policy.ports, [443]);
  assert.equal(secret?.policy.prefix, "sk-");
  assert.equal(secret?.ca, "./ca.pem");
  assert.equal(secret?.directory, "/etc/kloak");
  assert.equal(secret?.object, "secret OPENAI_API_KEY (/etc/kloak/kloak.yaml:2)");
  assert.deepEqual(other?.source, { kind: "command", command: ["op", "read", "op://dev/openai/key"] });
  assert.deepEqual(other?.policy.hosts.map(hostText), ["a.com", "*.b.com:8443"]);
});

const secretWith = (settings: string) =>
  `secrets:\n  KEY:\n    value: { env: KEY }\n    hosts: a.com\n    ${settings}\n`;

const refused: readonly (readonly [what: string, text: string, message: RegExp])[] = [
  ["empty", "", /^k\.yaml:1: .*"secrets" is missing|the file is empty/],
  ["no YAML", "secrets: [", /^k\.yaml:\d: not valid YAML: .*correct/],
  ["no secrets", "{}", /^k\.yaml:1: "secrets" is missing; list the secrets/],
  ["secrets empty", "secrets:\n", /^k\.yaml:1: secrets must be a mapping/],
  ["two documents", "secrets: {}\n---\nsecrets: {}\n", /^k\.yaml:3: .*more than one document/],
  ["a list", "- a\n", /^k\.yaml:1: the file must be a mapping/],
  ["unknown key at the top", "secrets: {}\nsecrest: {}\n", /^k\.yaml:2: unknown key "secrest"; did you mean "secrets"/],
  ["unknown key", secretWith("prot: 443"), /^k\.yaml:5: secret KEY: unknown key "prot"; did you mean "ports"/],
  [
    "unknown key without a near one",
    secretWith("zzz: 443"),
    /^k\.yaml:5: secret KEY: unknown key "zzz"; use value, hosts/,
  ],
  ["same key twice", secretWith("hosts: b.com"), /^k\.yaml:5: not valid YAML: .*unique/],
  ["ports of a wrong type", secretWith("ports: { a: 1 }"), /^k\.yaml:5: secret KEY: ports must be a number/],
  ["bad port", secretWith("ports: 99999"), /^k\.yaml:5: secret KEY: port of "99999" is not/],
  ["bad slot", secretWith("in: any"), /^k\.yaml:5: secret KEY: .*"any".*header, header:NAME, query, path and body/],
  ["bad attest", secretWith("attest: none"), /^k\.yaml:5: secret KEY: attest: none is for addresses only/],
  [
    "attest of a wrong type",
    secretWith("attest: true"),
    /^k\.yaml:5: secret KEY: attest must be text; put it in quotes/,
  ],
  ["prefix of a wrong type", secretWith("prefix: 12"), /^k\.yaml:5: secret KEY: prefix must be text; put it in quotes/],
  ["no value", "secrets:\n  KEY:\n    hosts: a.com\n", /^k\.yaml:2: secret KEY: "value" is missing; say where/],
  ["no hosts", "secrets:\n  KEY:\n    value: { env: KEY }\n", /^k\.yaml:2: secret KEY: "hosts" is missing; name/],
  ["hosts empty", "secrets:\n  KEY:\n    value: { env: KEY }\n    hosts: []\n", /^k\.yaml:4: secret KEY: no hosts/],
  [
    "hosts: *",
    'secrets:\n  KEY:\n    value: { env: KEY }\n    hosts: "*"\n',
    /^k\.yaml:4: secret KEY: host "\*" would allow/,
  ],
  [
    "hosts a number",
    "secrets:\n  KEY:\n    value: { env: KEY }\n    hosts: 12\n",
    /^k\.yaml:4: secret KEY: hosts must be text or a list/,
  ],
  [
    "settings missing",
    "secrets:\n  KEY:\n",
    /^k\.yaml:2: secret KEY: "KEY" must be a mapping; give it the keys value, hosts/,
  ],
  [
    "name of no variable",
    "secrets:\n  my-key:\n    value: { env: KEY }\n    hosts: a.com\n",
    /^k\.yaml:2: secret my-key: "my-key" is no name/,
  ],
  [
    "two sources",
    "secrets:\n  KEY:\n    value: { env: A, file: B }\n    hosts: a.com\n",
    /^k\.yaml:3: secret KEY: value must be one of/,
  ],
  [
    "command a text",
    "secrets:\n  KEY:\n    value: { command: op read }\n    hosts: a.com\n",
    /^k\.yaml:3: secret KEY: value must be one of/,
  ],
  [
    "command empty",
    "secrets:\n  KEY:\n    value: { command: [] }\n    hosts: a.com\n",
    /^k\.yaml:3: secret KEY: value must be one of/,
  ],
  [
    "the secret itself",
    "secrets:\n  KEY:\n    value: sk-live-xyz123\n    hosts: a.com\n",
    /^k\.yaml:3: secret KEY: value must be one of .*; the secret itself does not belong/,
  ],
];

for (const [what, text, message] of refused) {
  test(`refused with file, line, object and remedy: ${what}`, () => {
    assert.throws(
      () => parseConfig(text, "k.yaml"),
      (error: Error) => {
        assert.ok(error instanceof ConfigurationError, String(error));
        assert.match(error.message, message);
        assert.ok(!error.message.includes("sk-live"));
        return true;
      },
    );
  });
}

test("all that is wrong is said at once", () => {
  const text =
    "secrets:\n  A:\n    value: { env: A }\n    hosts: '*'\n    in: any\n  B:\n    value: { env: B }\n    hosts: a..b\n";
  assert.throws(
    () => parseConfig(text, "k.yaml"),
    (error: ConfigurationError) => {
      assert.deepEqual(
        error.findings.map(({ line, object }) => `${line} ${object}`),
        ["4 secret A", "5 secret A", "8 secret B"],
      );
      return true;
    },
  );
});

test("aliases work and are placed; those that multiply are refused", () => {
  const shared = "x: &x { value: { env: A }, hosts: a.com }\n";
  assert.throws(() => parseConfig(`${shared}secrets: { A: *x }\n`, "k.yaml"), /k\.yaml:1: unknown key "x"/);
  const [first] = parseConfig("secrets:\n  A: &x { value: { env: A }, hosts: a.com }\n  B: *x\n", "k.yaml");
  assert.equal(first?.name, "A");
  const lines = Array.from({ length: 9 }, (_, level) => `l${level + 1}: &l${level + 1} [${`*l${level},`.repeat(9)}]`);
  assert.throws(() => parseConfig(`l0: &l0 [a]\n${lines.join("\n")}\n`, "k.yaml"), /aliases/);
});

test("a file that is not there", () => {
  assert.throws(
    () => loadConfig("/nonexistent/kloak.yaml"),
    /\/nonexistent\/kloak\.yaml does not exist; check the path/,
  );
});

test("whatever the text, it is parsed or refused with findings", () => {
  const words = fc.constantFrom(
    "secrets:",
    "  KEY:",
    "    hosts: a",
    "    value:",
    "- a",
    "{",
    "}",
    "&a",
    "*a",
    "\t",
    "---",
    "? x",
    ": ",
    "!!binary x",
  );
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.array(words).map((lines) => lines.join("\n")),
  );
  fc.assert(
    fc.property(text, (written) => {
      try {
        parseConfig(written, "k.yaml");
      } catch (error) {
        assert.ok(error instanceof KloakError, String(error));
        assert.match(error.message, /^k\.yaml:\d+: /);
      }
    }),
    { numRuns: 2000 },
  );
});
