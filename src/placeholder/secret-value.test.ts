import assert from "node:assert/strict";
import { test } from "node:test";
import { format, inspect } from "node:util";
import { SecretValue } from "./secret-value.ts";

const text = "sk-live-xyz123abc456";

test("whatever prints a secret prints [redacted]", () => {
  const secret = new SecretValue(text);
  const printed = [
    String(secret),
    `${secret}`,
    "" + secret,
    JSON.stringify({ secret }),
    JSON.stringify(secret),
    inspect(secret, { showHidden: true, depth: null }),
    inspect({ deep: { secret } }, { showHidden: true, depth: null }),
    format("%s %o %j %O", secret, secret, secret, secret),
    JSON.stringify(Object.entries(secret)),
    JSON.stringify({ ...secret }),
    inspect(structuredClone(secret)),
  ];
  for (const line of printed) assert.ok(!line.includes(text) && !line.includes("115"), line);
  assert.equal(String(secret), "[redacted]");
  assert.equal(inspect(secret), "[redacted]");
  assert.equal(JSON.stringify({ secret }), '{"secret":"[redacted]"}');
});

test("reveal gives the bytes, until they are wiped", () => {
  const secret = new SecretValue(text);
  assert.equal(secret.reveal().toString(), text);
  assert.equal(secret.length, text.length);
  assert.ok(secret.equals(new SecretValue(text)));
  assert.ok(!secret.equals(new SecretValue("sk-live-xyz123abc457")));
  assert.ok(!secret.equals(new SecretValue("short")));
  secret.wipe();
  assert.ok(secret.reveal().every((byte) => byte === 0));
});
