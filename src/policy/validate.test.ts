import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { findingText } from "./finding.ts";
import { validateFiles, validateText } from "./validate.ts";

const base64 = (text: string) => Buffer.from(text).toString("base64");
const findings = (text: string) => validateText(text, "m.yaml").map(findingText);

const secret = (
  lines: readonly string[],
  values: readonly string[] = ['token: "sk-live-xyz123abc456"'],
) => `apiVersion: v1
kind: Secret
metadata:
  name: stripe
  namespace: payments
${lines.map((line) => `  ${line}`).join("\n")}
stringData:
${values.map((value) => `  ${value}`).join("\n")}
`;

const managed = (...annotations: string[]) => [
  'labels: { getkloak.io/enabled: "true" }',
  "annotations:",
  ...annotations.map((line) => `  getkloak.io/${line}`),
];

test("the first description's manifest is fine, and so is one with all settings", () => {
  const first = `apiVersion: v1
kind: Secret
metadata:
  name: openai-api-key
  labels:
    getkloak.io/enabled: "true"
    getkloak.io/hosts: "api.openai.com"
type: Opaque
stringData:
  token: sk-live-xyz123abc456
`;
  const all = secret(
    managed(
      'hosts: "api.example.com, *.example.org:8443"',
      'ports: "443,8443/tcp"',
      'port: "443"',
      "in: header:authorization,query",
      "attest: certificate",
      "ca: roots",
      "prefix: sk-live-",
      "proof: record",
      "keys: token",
    ),
    ['token: "sk-live-xyz123abc456"', "tls.key: |", "  several", "  lines"],
  );
  assert.deepEqual(findings(`${first}---\n${all}`), []);
});

test("objects that are none of ours are left alone", () => {
  const text = `apiVersion: v1
kind: Secret
metadata: { name: other }
data: { a: "%%%" }
---
kind: ConfigMap
apiVersion: v1
metadata: { name: x, labels: { getkloak.io/anything: "x" } }
---
# nothing
---
kind: Secret
apiVersion: v1
metadata: { name: stripe-kloak, labels: { getkloak.io/managed: "true", getkloak.io/owner: stripe } }
stringData: { token: "kloak:MPZVR3GHWT4E6YBCA01JQXK5N8" }
`;
  assert.deepEqual(findings(text), []);
});

const wrong: readonly (readonly [what: string, text: string, expected: readonly RegExp[]])[] = [
  [
    "no hosts",
    secret(['labels: { getkloak.io/enabled: "true" }']),
    [/^m\.yaml:3: Secret payments\/stripe: no hosts.*; name the hosts.*getkloak\.io\/hosts: api/],
  ],
  [
    "any host",
    secret(managed('hosts: "*"')),
    [/^m\.yaml:8: Secret payments\/stripe: host "\*" would allow every host/],
  ],
  [
    "misspelt annotation",
    secret(managed("hosts: a.com", "prots: 443")),
    [
      /^m\.yaml:9: Secret payments\/stripe: unknown annotation "getkloak\.io\/prots"; did you mean "getkloak\.io\/ports"/,
      /^m\.yaml:9: .*not text; put it in quotes: getkloak\.io\/prots: "443"/,
    ],
  ],
  [
    "a number",
    secret(managed("hosts: a.com", "port: 443")),
    [/^m\.yaml:9: .*getkloak\.io\/port is not text; put it in quotes: getkloak\.io\/port: "443"/],
  ],
  [
    "a boolean label",
    secret(["labels: { getkloak.io/enabled: true, getkloak.io/hosts: a.com }"]),
    [/^m\.yaml:6: .*getkloak\.io\/enabled is not text; put it in quotes/],
  ],
  ["bad port", secret(managed("hosts: a.com", 'port: "443/udp"')), [/^m\.yaml:9: .*"443\/udp".*only TCP/]],
  [
    "label and annotation differ",
    secret([
      'labels: { getkloak.io/enabled: "true", getkloak.io/hosts: b.com }',
      "annotations: { getkloak.io/hosts: a.com }",
    ]),
    [/^m\.yaml:7: .*annotation getkloak\.io\/hosts says "a\.com" and the label "b\.com"; keep one/],
  ],
  [
    "enabled as annotation",
    secret(["annotations:", '  getkloak.io/enabled: "true"', "  getkloak.io/hosts: a.com"]),
    [/^m\.yaml:7: .*is an annotation, not a label; set label getkloak\.io\/enabled: "true"/],
  ],
  [
    "not enabled",
    secret(["annotations:", "  getkloak.io/hosts: a.com"]),
    [/^m\.yaml:3: warning: .*has settings but is not managed; set label/],
  ],
  [
    "enabled: yes",
    secret(['labels: { getkloak.io/enabled: "yes", getkloak.io/hosts: a.com }']),
    [/^m\.yaml:6: warning: .*is "yes", which opts out/],
  ],
  [
    "short value",
    secret(managed("hosts: a.com"), ["a: abc"]),
    [/^m\.yaml:10: .*: key a: the value has 3 bytes.*getkloak\.io\/keys/],
  ],
  [
    "value with line feed",
    secret(managed("hosts: a.com"), ["a: |", "  sk-live-xyz123abc456"]),
    [/^m\.yaml:10: .*: key a: the value ends in a line feed/],
  ],
  [
    "value that is a number",
    secret(managed("hosts: a.com"), ["a: 12345678901"]),
    [/^m\.yaml:10: .*: key a: the value is not text; put it in quotes/],
  ],
  [
    "unknown key",
    secret(managed("hosts: a.com", "keys: tokn")),
    [/^m\.yaml:9: .*keys names "tokn", which is no key; did you mean "token"/],
  ],
  [
    "prefix too long",
    secret(managed("hosts: a.com", "prefix: sk-live-xyz123")),
    [/^m\.yaml:11: .*key token: prefix "sk-live-xyz123" is too long/],
  ],
  [
    "no base64",
    secret(managed("hosts: a.com")).replace("stringData", "data"),
    [/^m\.yaml:10: .*key token: the value is not base64; encode it/],
  ],
  ["broken YAML", "kind: Secret\n  x: [", [/^m\.yaml:\d: not valid YAML/]],
  [
    "Deployment labelled",
    'kind: Deployment\nmetadata:\n  name: web\n  labels:\n    getkloak.io/enabled: "true"\n',
    [/^m\.yaml:5: Deployment web: .*not on its pods; move it to spec\.template\.metadata\.labels/],
  ],
  [
    "Namespace label",
    "kind: Namespace\nmetadata:\n  name: shop\n  labels:\n    getkloak.io/enabled: enabled\n",
    [/^m\.yaml:5: warning: Namespace shop: .*"enabled", which opts out/],
  ],
  [
    "unknown on a pod template",
    "kind: CronJob\nmetadata: { name: c }\nspec:\n  jobTemplate:\n    spec:\n      template:\n        metadata:\n          labels:\n            getkloak.io/enable: 'true'\n",
    [/^m\.yaml:9: CronJob c: unknown label "getkloak\.io\/enable"; did you mean "getkloak\.io\/enabled"/],
  ],
  [
    "in a List",
    'kind: List\napiVersion: v1\nitems:\n- kind: Secret\n  metadata:\n    name: a\n    labels:\n      getkloak.io/enabled: "true"\n      getkloak.io/hosts: a..b\n',
    [/^m\.yaml:9: Secret a: host "a\.\.b" has an empty label/],
  ],
  [
    "kloak.yaml",
    "secrets:\n  KEY:\n    value: { env: KEY }\n    host: a.com\n",
    [/^m\.yaml:2: secret KEY: "hosts" is missing/, /^m\.yaml:4: secret KEY: unknown key "host"; did you mean "hosts"/],
  ],
];

for (const [what, text, expected] of wrong) {
  test(`found, with file, line, object and remedy: ${what}`, () => {
    const lines = findings(text);
    assert.equal(lines.length, expected.length, lines.join("\n"));
    lines.forEach((line, index) => assert.match(line, expected[index] as RegExp));
  });
}

test("no finding shows a value", () => {
  const value = "sk-live-xyz123\nabc456";
  const text = `kind: Secret
metadata: { name: a, labels: { getkloak.io/enabled: "true", getkloak.io/hosts: a.com } }
data: { a: ${base64(value)}, b: ${base64("short")} }
stringData: { c: ${JSON.stringify(value)} }
`;
  const lines = findings(text);
  assert.equal(lines.length, 3);
  for (const line of lines) assert.ok(!/xyz123|short$|c2st|abc456/.test(line), line);
});

test("values in base64 are looked at decoded, whatever line breaks they have", () => {
  const encoded = base64("sk-live-xyz123abc456").replace(/(.{10})/g, "$1\n    ");
  const text = `kind: Secret
metadata: { name: a, labels: { getkloak.io/enabled: "true", getkloak.io/hosts: a.com } }
data:
  a: |
    ${encoded}
`;
  assert.deepEqual(findings(text), []);
});

test("files are validated one after the other; one that cannot be read is a finding", () => {
  const directory = mkdtempSync(join(tmpdir(), "kloak-validate-"));
  after(() => rmSync(directory, { recursive: true }));
  const good = join(directory, "good.yaml");
  writeFileSync(good, "secrets: { KEY: { value: { env: KEY }, hosts: a.com } }\n");
  assert.deepEqual(validateFiles([good]), []);
  const [finding] = validateFiles([good, join(directory, "none.yaml")]);
  assert.match(
    findingText(finding as NonNullable<typeof finding>),
    /none\.yaml:1: the file cannot be read \(ENOENT\); check the path/,
  );
});
