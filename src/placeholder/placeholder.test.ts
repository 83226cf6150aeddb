import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { huffmanBits } from "./huffman.ts";
import { makePlaceholder, PlaceholderError, placeholderProblem } from "./placeholder.ts";
import { SecretValue } from "./secret-value.ts";
import { printable } from "./testing.ts";
import { markerOffset, tokenOf, tokenText } from "./token.ts";

const safe = /^[A-Za-z0-9~+!#^]*$/;
const plain = /^[A-Z0-9]*$/;

function valueOf(text: string): SecretValue {
  return new SecretValue(text);
}

function checkShape(value: SecretValue, placeholder: string, prefix = ""): void {
  const text = Buffer.from(placeholder, "latin1");
  assert.equal(text.length, value.length, "byte length");
  assert.equal(huffmanBits(text), huffmanBits(value.reveal()), "Huffman bit length");
  assert.ok(placeholder.startsWith(`${prefix}kloak:`), placeholder);
  assert.match(placeholder.slice(prefix.length + 6), safe);
  assert.equal(markerOffset(placeholder), prefix.length);
}

test("a placeholder has the byte length and the Huffman bit length of its value, and a safe alphabet", () => {
  let made = 0;
  fc.assert(
    fc.property(printable({ minLength: 8, maxLength: 4096 }), (text) => {
      const value = valueOf(text);
      if (placeholderProblem(value) !== undefined) return;
      made++;
      checkShape(value, makePlaceholder(value));
    }),
    { numRuns: 300 },
  );
  assert.ok(made > 100, `${made} of 300`);
});

test("placeholderProblem and makePlaceholder agree on every value", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 40 }), fc.string({ maxLength: 6 }), (text, prefix) => {
      const value = valueOf(text);
      const problem = placeholderProblem(value, prefix);
      if (problem === undefined) checkShape(value, makePlaceholder(value, { prefix }), prefix);
      else assert.throws(() => makePlaceholder(value, { prefix }), { name: "PlaceholderError", code: problem.code });
    }),
    { numRuns: 1000 },
  );
});

test("a value that a URL does not hold as it is has no placeholder for one", () => {
  for (const odd of '+/%&;#? "<>[]\\^`{|}') {
    const value = valueOf(`AIzaSyD-9t${odd}Srke72_PouQMnMX`);
    assert.equal(placeholderProblem(value, "", true)?.code, "value-not-for-url", odd);
    assert.equal(placeholderProblem(value), undefined, odd);
  }
  assert.equal(placeholderProblem(valueOf("AIzaSyD-9tSrke72_PouQMnMX"), "", true), undefined);
});

// keys as services hand them out: their placeholders are capitals and digits
const ordinary: readonly string[] = [
  "sk-live-xyz123abc456",
  "AKIAIOSFODNN7EXAMPLE",
  "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
  "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy",
  "8f14e45fceea167a5a36dedd4bea2543",
  "b7f0bb1e-0c2c-4d0b-9e3e-7f6d1b1c5e55",
  "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
];

for (const text of ordinary) {
  test(`a value like ${text.slice(0, 9)}… gets capitals and digits`, () => {
    const placeholder = makePlaceholder(valueOf(text));
    checkShape(valueOf(text), placeholder);
    assert.match(placeholder.slice(6), plain);
  });
}

test("a value of ZZ… and one of many symbols are reached", () => {
  for (const text of [
    "ZZZZZZZZZZZZ",
    "P@ssw0rd",
    "Tr0ub4dor&3",
    "correct horse battery staple",
    'a"b\\c{d}e<f>gHIJKLMN',
    "~".repeat(60),
  ]) {
    checkShape(valueOf(text), makePlaceholder(valueOf(text)));
  }
});

test("the longest and the shortest value", () => {
  for (const text of ["B".repeat(4096), "x7".repeat(2048), "~".repeat(4096), "KLOAKABC", "abcdXZXZ"]) {
    checkShape(valueOf(text), makePlaceholder(valueOf(text)));
  }
});

test("a prefix is kept", () => {
  const value = valueOf("sk-live-xyz123abc456");
  const placeholder = makePlaceholder(value, { prefix: "sk-live-" });
  checkShape(value, placeholder, "sk-live-");
  assert.equal(tokenText(placeholder), placeholder.slice(8, 16));
});

const refused: readonly (readonly [what: string, text: string, prefix: string, code: string, message: RegExp])[] = [
  ["empty", "", "", "value-empty", /empty/],
  ["too short", "1234567", "", "value-too-short", /7 bytes.*at least 8/],
  ["too long", "B".repeat(4097), "", "value-too-long", /4097 bytes.*4096/],
  ["line feed at the end", "abcdefghijk\n", "", "value-characters", /ends in a line feed.*printf/],
  ["NUL", "abcd\0efghijk", "", "value-characters", /byte 5 .*NUL/],
  ["CR LF inside", "abcd\r\nX-Evil: 1", "", "value-characters", /byte 5 .*carriage return/],
  ["not ASCII", "pässword-pässword", "", "value-characters", /byte 2 .*not an ASCII character/],
  ["DEL", "abcdefgh\x7fijk", "", "value-characters", /byte 9 .*control/],
  ["zeros", "00000000", "", "no-equal-shape", /Huffman.*0 1 2 a c e/],
  ["only symbols", "\\\\\\\\\\\\\\\\\\\\", "", "no-equal-shape", /symbols/],
  ["a placeholder", "kloak:MPZVR3GHWT4E6YBCA01JQXK5N8", "", "value-is-placeholder", /kloak:.*real value/],
  ["prefix leaves no room", "sk-live-123456", "sk-live-", "prefix-too-long", /at most 6 characters/],
  ["prefix with 8-byte value", "abcdXZXZ", "a", "prefix-too-long", /leave the prefix out/],
  ["prefix with space", "Bearer abcdefghijklm", "Bearer ", "prefix-unsafe", /letters, digits/],
  ["prefix with quote", "abcdefghijklmnopqrst", '"', "prefix-unsafe", /letters, digits/],
  ["prefix with line feed", "abcdefghijklmnopqrst", "a\n", "prefix-unsafe", /letters, digits/],
  ["prefix with marker", "abcdefghijklmnopqrst", "kloak:", "prefix-unsafe", /leave it out/],
];

for (const [what, text, prefix, code, message] of refused) {
  test(`refused with a reason and a remedy: ${what}`, () => {
    assert.throws(
      () => makePlaceholder(valueOf(text), { prefix, object: "Secret payments/stripe, key token" }),
      (error: unknown) => {
        assert.ok(error instanceof PlaceholderError);
        assert.equal(error.code, code);
        assert.match(error.message, message);
        assert.match(error.message, /^Secret payments\/stripe, key token: .+; .+/);
        if (text.length > 6 && code !== "value-is-placeholder") assert.ok(!error.message.includes(text));
        return true;
      },
    );
  });
}

test("tokens are unique among those taken, until all are taken", () => {
  const value = valueOf("KLOAK145"); // leaves 14 bits for two characters
  const taken = new Set<string>();
  for (let index = 0; index < 400; index++) {
    const token = tokenText(makePlaceholder(value, { taken }));
    assert.ok(!taken.has(token));
    taken.add(token);
  }
  const full = { has: () => true } as unknown as ReadonlySet<string>;
  assert.throws(() => makePlaceholder(value, { taken: full }), { code: "placeholders-taken" });
});

test("a long placeholder does not start with a short one", () => {
  const value = valueOf("sk-live-xyz123abc456");
  const firstTwo = new Set(Array.from({ length: 5000 }, () => makePlaceholder(value).slice(0, 8)));
  const free = [...firstTwo].at(-1) as string;
  const taken = new Set([...firstTwo].filter((token) => token !== free));
  for (let index = 0; index < 10; index++) assert.ok(!taken.has(makePlaceholder(value, { taken }).slice(0, 8)));
});

test("the token is what struct token_key holds", () => {
  assert.equal(tokenOf("sk-kloak:ABCDEFGHIJKLMN").toString("latin1"), "kloak:ABCDEFGHIJ");
  assert.equal(tokenOf("kloak:ABCDEFGHIJ").toString("latin1"), "kloak:ABCDEFGHIJ");
  assert.equal(tokenOf("kloak:ABCDEFGHI").toString("latin1"), `kloak:AB${"\0".repeat(8)}`);
  assert.equal(tokenOf("sk-kloak:AB").toString("latin1"), `kloak:AB${"\0".repeat(8)}`);
});

test("texts of one shape are equally likely", () => {
  const value = valueOf("KLOAK145");
  const seen = new Map<string, number>();
  const draws = 40_000;
  for (let index = 0; index < draws; index++) {
    const text = makePlaceholder(value).slice(6);
    seen.set(text, (seen.get(text) ?? 0) + 1);
  }
  const mean = draws / seen.size;
  const chiSquared = [...seen.values()].reduce((sum, times) => sum + (times - mean) ** 2 / mean, 0);
  const freedom = seen.size - 1;
  // 8 standard deviations: fails once in 10^14 runs unless the draw is biased
  assert.ok(Math.abs(chiSquared - freedom) < 8 * Math.sqrt(2 * freedom), `${chiSquared} for ${freedom}`);
});

test("a value of few distinct code lengths still leaves more than 2^40 texts", () => {
  const value = valueOf("0".repeat(20) + "B".repeat(10)); // nearly all codes of 5 bits
  const texts = new Set(Array.from({ length: 2000 }, () => makePlaceholder(value)));
  assert.equal(texts.size, 2000);
});

test("the random source decides, and nothing else", () => {
  const value = valueOf("sk-live-xyz123abc456");
  const fixed = (count: number) => new Uint8Array(count).fill(7);
  assert.equal(makePlaceholder(value, { random: fixed }), makePlaceholder(value, { random: fixed }));
  assert.notEqual(makePlaceholder(value, { random: randomBytes }), makePlaceholder(value, { random: randomBytes }));
});
