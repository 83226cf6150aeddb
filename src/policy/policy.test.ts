import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parsePolicy, policyProblems } from "./policy.ts";
import { PolicyError } from "./policy-error.ts";
import { type PortsInput, parsePorts } from "./ports.ts";
import { parseSlots, slotsText } from "./slots.ts";
import { editDistance, suggest } from "./suggest.ts";

const ports: readonly (readonly [written: PortsInput, meant: readonly number[] | RegExp])[] = [
  ["443", [443]],
  ["443/tcp", [443]],
  ["443/TCP", [443]],
  [443, [443]],
  [
    [8443, "443/tcp", 443],
    [443, 8443],
  ],
  ["443, 8443/tcp", [443, 8443]],
  ["", []],
  [[], []],
  ["443/udp", /"443\/udp".*only TCP.*"443"/],
  ["443/tcp/x", /only TCP/],
  ["https", /"https".*1 to 65535/],
  ["0", /1 to 65535/],
  ["65536", /1 to 65535/],
  ["-1", /1 to 65535/],
  ["4e2", /1 to 65535/],
  [443.5, /1 to 65535/],
  ["443,,80", /empty entry/],
  [[1, 2, 3, 4, 5, 6, 7, 8, 9], /9 ports.*8/],
];

for (const [written, meant] of ports) {
  test(`ports ${JSON.stringify(written)}`, () => {
    if (meant instanceof RegExp) assert.throws(() => parsePorts(written), meant);
    else assert.deepEqual(parsePorts(written), meant);
  });
}

const slots: readonly (readonly [written: string | string[], meant: string | RegExp])[] = [
  ["", "header"],
  ["header", "header"],
  ["Header", "header"],
  ["header:authorization,header:X-Api-Key", "header:authorization,header:x-api-key"],
  [["header:cookie", "header:cookie"], "header:cookie"],
  ["header, header:cookie, query, body, path", "header,header:cookie,query,path,body"],
  ["query:key", /"query:key".*"query" allows all/],
  ["body:token", /"body:token".*"body" allows all/],
  ["any", /"any".*header, header:NAME, query, path and body/],
  ["headers", /did you mean "header"/],
  ["qeury", /did you mean "query"/],
  ["nonsense", /use header, header:NAME, query, path and body/],
  ["path:x", /"path" takes no name/],
  ["header:", /name a header/],
  ["header::authority", /name a header/],
  ["header:a b", /name a header/],
  [`header:${"a".repeat(40)}`, /39/],
  [["header:a", "header:b", "header:c", "header:d", "header:e"], /5 headers.*4/],
];

for (const [written, meant] of slots) {
  test(`in ${JSON.stringify(written)}`, () => {
    if (meant instanceof RegExp) assert.throws(() => parseSlots(written), meant);
    else assert.equal(slotsText(parseSlots(written)), meant);
  });
}

test("the defaults: any port, header, certificate, flow, no prefix", () => {
  const policy = parsePolicy({ hosts: "api.openai.com" });
  assert.deepEqual(
    { ...policy, hosts: [] },
    {
      hosts: [],
      ports: [],
      slots: { header: true, headers: [], query: false, path: false, body: false },
      attest: "certificate",
      proof: "flow",
      prefix: "",
    },
  );
});

const conflicts: readonly (readonly [Parameters<typeof parsePolicy>[0], RegExp, string])[] = [
  [{}, /no hosts.*hosts: api\.example\.com/, "hosts"],
  [{ hosts: "a.com:8443", ports: "443" }, /"a\.com:8443".*443.*add 8443/, "ports"],
  [{ hosts: "a.com,10.0.0.0/8", attest: "none" }, /"a\.com" is a name.*anybody/, "attest"],
  [{ hosts: "a.com,10.0.0.0/8", attest: "dns" }, /"10\.0\.0\.0\/8" is an address/, "attest"],
  [{ hosts: "a.com", attest: "certficate" }, /did you mean "certificate"/, "attest"],
  [{ hosts: "a.com", proof: "strong" }, /use flow, record, none/, "proof"],
  [{ hosts: "a.com", prefix: "Bearer " }, /prefix "Bearer "/, "prefix"],
];

for (const [input, message, setting] of conflicts) {
  test(`refused: ${JSON.stringify(input)}`, () => {
    assert.throws(() => parsePolicy(input), message);
    const problems = policyProblems(input);
    assert.equal(problems.length, 1);
    assert.equal(problems[0]?.setting, setting);
    assert.match(problems[0]?.error.message ?? "", message);
  });
}

test("policyProblems finds all that is wrong at once, and nothing in what parses", () => {
  const found = policyProblems({ hosts: "*", ports: "x", in: "any", attest: "x", proof: "y", prefix: '"' });
  assert.deepEqual(
    found.map(({ setting }) => setting),
    ["hosts", "ports", "in", "attest", "proof", "prefix"],
  );
  assert.deepEqual(policyProblems({ hosts: "a.com:443", ports: [443], attest: "dns" }), []);
  assert.deepEqual(policyProblems({ hosts: "10.0.0.1", attest: "none" }), []);
});

test("an error can be said of an object", () => {
  const error = new PolicyError("code", "problem", "remedy").of("Secret a/b");
  assert.equal(error.message, "Secret a/b: problem; remedy");
});

test("edit distance is a metric, and suggestions are near", () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 8 }), fc.string({ maxLength: 8 }), (left, right) => {
      assert.equal(editDistance(left, right), editDistance(right, left));
      assert.equal(editDistance(left, left), 0);
      assert.ok(editDistance(left, right) <= Math.max(left.length, right.length));
    }),
  );
  assert.equal(suggest("hsots", ["hosts", "ports"]), "hosts");
  assert.equal(suggest("zzz", ["hosts", "ports"]), undefined);
});
