import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import type { Secret } from "../kube/objects.ts";
import { huffmanBits } from "../placeholder/huffman.ts";
import { tokenText } from "../placeholder/index.ts";
import { isShadowOf } from "../shadow/marks.ts";
import { desiredShadow, sameShadow } from "./shadow.ts";

const encode = (text: string): string => Buffer.from(text, "latin1").toString("base64");
const decode = (text: string | undefined): string => Buffer.from(text ?? "", "base64").toString("latin1");

function secret(data: Record<string, string>, metadata: Partial<Secret["metadata"]> = {}): Secret {
  return {
    apiVersion: "v1",
    kind: "Secret",
    type: "Opaque",
    metadata: {
      name: "stripe",
      namespace: "payments",
      uid: "u-1",
      resourceVersion: "7",
      labels: { "getkloak.io/enabled": "true", "getkloak.io/hosts": "api.stripe.com" },
      ...metadata,
    },
    data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, encode(text)])),
  };
}

const value = "sk-live-xyz123abc456";
const none: ReadonlySet<string> = new Set();

test("a shadow has the same keys and type, values of equal shape, an owner and its marks", () => {
  const original = secret({ token: value, other: "Xy9-7qqTTllmnop" });
  const { shadow, problems, conflict } = desiredShadow(original, undefined, none);
  assert.ok(shadow);
  assert.deepEqual([problems, conflict], [[], false]);
  assert.equal(shadow.metadata.name, "stripe-kloak");
  assert.equal(shadow.type, "Opaque");
  assert.deepEqual(shadow.metadata.labels, { "getkloak.io/managed": "true", "getkloak.io/owner": "stripe" });
  assert.ok(isShadowOf(shadow, original));
  for (const [key, text] of Object.entries(original.data ?? {})) {
    const real = decode(text);
    const placeholder = decode(shadow.data?.[key]);
    assert.match(placeholder, /^kloak:/);
    assert.equal(placeholder.length, real.length);
    assert.equal(huffmanBits(Buffer.from(placeholder)), huffmanBits(Buffer.from(real)));
  }
});

test("a value of equal shape keeps its placeholder, one of another shape does not", () => {
  const original = secret({ token: value });
  const before = desiredShadow(original, undefined, none).shadow;
  assert.ok(before);
  const rotated = desiredShadow(secret({ token: "sk-live-zyx321cba654" }), before, none);
  assert.deepEqual([rotated.shadow?.data, rotated.changed], [before.data, []]);
  const longer = desiredShadow(secret({ token: `${value}-and-more` }), before, none);
  assert.deepEqual(longer.changed, ["token"]);
  assert.equal(decode(longer.shadow?.data?.["token"]).length, value.length + 9);
});

test("what a user has changed in a shadow is put right", () => {
  const original = secret({ token: value });
  const before = desiredShadow(original, undefined, none).shadow;
  assert.ok(before);
  for (const data of [
    {},
    { token: encode("hello") },
    { ...before.data, more: encode("x") },
    { token: encode(value) },
  ]) {
    const { shadow } = desiredShadow(original, { ...before, data }, none);
    assert.ok(shadow);
    assert.deepEqual(Object.keys(shadow.data ?? {}), ["token"]);
    assert.match(decode(shadow.data?.["token"]), /^kloak:/);
  }
  const marked = { ...before, metadata: { ...before.metadata, labels: { ...before.metadata.labels, mine: "yes" } } };
  assert.equal(desiredShadow(original, marked, none).shadow?.metadata.labels?.["mine"], "yes");
});

test("a placeholder that another shadow has is not used", () => {
  const original = secret({ token: value });
  const before = desiredShadow(original, undefined, none).shadow;
  const token = tokenText(decode(before?.data?.["token"]));
  const after = desiredShadow(original, before, new Set([token])).shadow;
  assert.notEqual(tokenText(decode(after?.data?.["token"])), token);
});

test("keys that are not managed are copied", () => {
  const annotations = { "getkloak.io/keys": "token" };
  const { shadow } = desiredShadow(secret({ token: value, region: "eu" }, { annotations }), undefined, none);
  assert.equal(decode(shadow?.data?.["region"]), "eu");
  assert.match(decode(shadow?.data?.["token"]), /^kloak:/);
});

const faults: readonly { name: string; secret: Secret; reasons: readonly string[] }[] = [
  {
    name: "no hosts",
    secret: secret({ token: value }, { labels: { "getkloak.io/enabled": "true" } }),
    reasons: ["HostsMissing"],
  },
  {
    name: "an invalid host",
    secret: secret(
      { token: value },
      { annotations: { "getkloak.io/hosts": "not a host" }, labels: { "getkloak.io/enabled": "true" } },
    ),
    reasons: ["HostInvalid"],
  },
  { name: "a value that is too short", secret: secret({ token: "short" }), reasons: ["ValueTooShort"] },
  { name: "a value with a line feed", secret: secret({ token: `${value}\n` }), reasons: ["ValueCharacters"] },
  {
    name: "keys that are none",
    secret: secret({ token: value }, { annotations: { "getkloak.io/keys": "tokem" } }),
    reasons: ["KeysUnknown"],
  },
  {
    name: "label and annotation that differ",
    secret: secret({ token: value }, { annotations: { "getkloak.io/hosts": "other.test" } }),
    reasons: ["SettingsDiffer"],
  },
];

for (const fault of faults) {
  test(`${fault.name}: said, and never a real value in the shadow`, () => {
    const { shadow, problems } = desiredShadow(fault.secret, undefined, none);
    assert.deepEqual(
      problems.map(({ reason }) => reason),
      fault.reasons,
    );
    const real = decode(fault.secret.data?.["token"]);
    if (fault.reasons[0] !== "KeysUnknown") assert.ok(!JSON.stringify(shadow).includes(encode(real)));
    for (const { message } of problems) assert.ok(!message.includes(real), message);
  });
}

test("a Secret of the shadow's name that is not Kloak's is left alone, and said", () => {
  const stranger = secret({ token: "whatever" }, { name: "stripe-kloak", uid: "u-2", labels: {} });
  const forged = { ...stranger, metadata: { ...stranger.metadata, labels: { "getkloak.io/managed": "true" } } };
  for (const existing of [stranger, forged]) {
    const { shadow, conflict, problems } = desiredShadow(secret({ token: value }), existing, none);
    assert.deepEqual([shadow, conflict, problems[0]?.reason], [undefined, true, "ShadowNameTaken"]);
  }
});

test("no data, however odd, reaches a shadow as it is under a managed key", () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.stringMatching(/^[a-z.]{1,8}$/), fc.uint8Array({ minLength: 1, maxLength: 64 })),
      (data) => {
        const encoded = Object.fromEntries(
          Object.entries(data).map(([key, bytes]) => [key, Buffer.from(bytes).toString("base64")]),
        );
        const original = { ...secret({}), data: encoded };
        const first = desiredShadow(original, undefined, none);
        assert.ok(first.shadow);
        for (const [key, text] of Object.entries(encoded)) assert.notEqual(first.shadow.data?.[key], text);
        const second = desiredShadow(original, first.shadow, none);
        assert.ok(second.shadow && sameShadow(first.shadow, second.shadow), "a second look changes nothing");
      },
    ),
  );
});
