import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import { redact, redactPlaceholders } from "./redact.ts";
import { SecretValue } from "./secret-value.ts";

const secret = new SecretValue('sk-live/"xyz"123abc456');

test("redact takes a secret out of text, as it is and quoted", () => {
  const revealed = secret.reveal().toString();
  assert.equal(redact(`Bearer ${revealed}!`, [secret]), "Bearer [redacted]!");
  assert.equal(redact(JSON.stringify({ key: revealed }), [secret]), '{"key":"[redacted]"}');
  assert.equal(redact(`?key=${encodeURIComponent(revealed)}`, [secret]), "?key=[redacted]");
});

test("redact takes the whole groups of a secret out of base64 at every alignment", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 9 }), fc.uint8Array({ maxLength: 9 }), (before, after) => {
      const text = Buffer.concat([before, secret.reveal(), after]).toString("base64");
      const shown = redact(text, [secret]);
      assert.ok(shown.includes("[redacted]"), shown);
      assert.ok(shown.length < text.length);
    }),
  );
});

test("a placeholder loses its random part", () => {
  assert.equal(redactPlaceholders("a kloak:MPZVR3GHWT4E6YBCA01JQXK5N8, b"), "a kloak:[redacted], b");
  assert.equal(redact("sk-kloak:AB~C+!#^1"), "sk-kloak:[redacted]");
  assert.equal(redact("nothing here"), "nothing here");
});
