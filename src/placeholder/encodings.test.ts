import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import { type Encoding, encoding } from "../dataplane/types.gen.ts";
import { chunkBytes, encodings } from "./encodings.ts";
import { huffmanBits, huffmanCodes } from "./huffman.ts";
import { makePlaceholder, placeholderProblem } from "./placeholder.ts";
import { SecretValue } from "./secret-value.ts";
import { printable } from "./testing.ts";

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** What the kernel does with one placeholder that starts at `at` of a text: compare, then XOR. */
function substitute(text: Buffer, at: number, form: Form, which: Encoding): Buffer {
  const result = Buffer.from(text);
  const length = encodedLength(form.bytes, which);
  for (let index = 0; index < length; index++) {
    const character = text[at + index] as number;
    const mask = ownBits(which, form.bytes, index, length);
    const expected = form.expected[index] as number;
    const delta = form.delta[index] as number;
    if (mask === wholeCharacter) {
      assert.equal(character, expected, `character ${index} of encoding ${which}`);
      result[at + index] = character ^ delta;
    } else {
      const six = base64Alphabet.indexOf(String.fromCharCode(character));
      assert.equal(six & mask, base64Alphabet.indexOf(String.fromCharCode(expected)));
      result[at + index] = base64Alphabet.charCodeAt(six ^ delta);
    }
  }
  return result;
}

interface Form {
  readonly bytes: number;
  readonly expected: Buffer;
  readonly delta: Buffer;
}

const wholeCharacter = -1;

function encodedLength(bytes: number, which: Encoding): number {
  if (which === encoding.raw) return bytes;
  const before = which - encoding.base64_0;
  return Math.floor((8 * (before + bytes) - 1) / 6) - Math.floor((8 * before) / 6) + 1;
}

function ownBits(which: Encoding, bytes: number, index: number, length: number): number {
  if (which === encoding.raw) return wholeCharacter;
  const before = which - encoding.base64_0;
  if (index === 0 && before === 1) return 0b001111;
  if (index === 0 && before === 2) return 0b000011;
  const after = (before + bytes) % 3;
  if (index === length - 1 && after === 1) return 0b110000;
  if (index === length - 1 && after === 2) return 0b111100;
  return wholeCharacter;
}

function form(placeholder: string, value: SecretValue, which: Encoding): Form {
  const rows = encodings(placeholder, value).filter((chunk) => chunk.encoding === which);
  rows.forEach((row, index) => {
    assert.equal(row.index, index);
    assert.equal(row.expected.length, chunkBytes);
    assert.equal(row.delta.length, chunkBytes);
  });
  const expected = Buffer.concat(rows.map((row) => row.expected));
  const delta = Buffer.concat(rows.map((row) => row.delta));
  const length = encodedLength(value.length, which);
  assert.equal(rows.length, Math.ceil(length / chunkBytes));
  assert.ok(
    expected.subarray(length).every((byte) => byte === 0),
    "the rest is zero",
  );
  assert.ok(
    delta.subarray(length).every((byte) => byte === 0),
    "the rest is zero",
  );
  return { bytes: value.length, expected, delta };
}

const secrets = printable({ minLength: 8, maxLength: 200 })
  .map((text) => new SecretValue(text))
  .filter((value) => placeholderProblem(value) === undefined);

test("the delta turns the placeholder into the secret, wherever it stands", () => {
  fc.assert(
    fc.property(secrets, fc.string({ maxLength: 40 }), fc.string({ maxLength: 40 }), (value, before, after) => {
      const placeholder = makePlaceholder(value);
      const text = Buffer.from(before + placeholder + after);
      const at = Buffer.byteLength(before);
      const result = substitute(text, at, form(placeholder, value, encoding.raw), encoding.raw);
      assert.equal(result.toString(), before + value.reveal().toString("latin1") + after);
    }),
  );
});

test("the delta turns user:placeholder:rest in base64 into user:secret:rest at every alignment, neighbours kept", () => {
  const seen = new Set<number>();
  const bytes = fc.uint8Array({ maxLength: 40 });
  fc.assert(
    fc.property(secrets, bytes, bytes, (value, user, rest) => {
      const placeholder = makePlaceholder(value);
      const text = Buffer.from(Buffer.concat([user, Buffer.from(placeholder), rest]).toString("base64"));
      const which = (encoding.base64_0 + (user.length % 3)) as Encoding;
      seen.add(which);
      const at = Math.floor((user.length * 8) / 6);
      const result = substitute(text, at, form(placeholder, value, which), which);
      const expected = Buffer.concat([user, value.reveal(), rest]).toString("base64");
      assert.equal(result.toString(), expected);
    }),
    { numRuns: 500 },
  );
  assert.equal(seen.size, 3);
});

test("percent-encoded, the delta turns what a client makes of the placeholder into what means the secret", () => {
  const inUrl = fc
    .string({ unit: fc.constantFrom(..."ABCxyz019-._~!$'()*,:@="), minLength: 8, maxLength: 200 })
    .map((text) => new SecretValue(text))
    .filter((value) => placeholderProblem(value, "", true) === undefined);
  fc.assert(
    fc.property(inUrl, fc.constantFrom(encoding.percentUpper, encoding.percentLower), (value, which) => {
      const placeholder = makePlaceholder(value, { inUrl: true });
      const rows = encodings(placeholder, value).filter((chunk) => chunk.encoding === which);
      const length = placeholder.length + 2;
      assert.equal(rows.length, Math.ceil(length / chunkBytes));
      const expected = Buffer.concat(rows.map((row) => row.expected)).subarray(0, length);
      const delta = Buffer.concat(rows.map((row) => row.delta));
      const sent = placeholder.replace(":", which === encoding.percentUpper ? "%3A" : "%3a");
      assert.equal(expected.toString("latin1"), sent);
      const replaced = expected.map((byte, at) => byte ^ (delta[at] as number));
      assert.equal(new URLSearchParams(`a=1&key=${replaced.toString()}&b=2`).get("key"), value.reveal().toString());
      assert.equal(decodeURIComponent(replaced.toString()), value.reveal().toString());
    }),
    { numRuns: 500 },
  );
});

/** RFC 7541 5.2. */
function huffman(text: Buffer): Buffer {
  const codes = [...text].map((byte) => huffmanCodes[byte] ?? { code: 0, bits: 0 });
  const bits = codes.map(({ code, bits }) => code.toString(2).padStart(bits, "0")).join("");
  const whole = bits.padEnd(Math.ceil(bits.length / 8) * 8, "1");
  return Buffer.from((whole.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
}

test("Huffman: the example of RFC 7541 C.4.1", () => {
  assert.equal(huffman(Buffer.from("www.example.com")).toString("hex"), "f1e3c2e5f23a6ba0ab90f4ff");
});

test("the delta turns a Huffman string around the placeholder into that around the secret at every bit alignment", () => {
  const seen = new Set<number>();
  const text = printable({ minLength: 0, maxLength: 20 }).map((value) => Buffer.from(value));
  fc.assert(
    fc.property(secrets, text, text, (value, before, after) => {
      const placeholder = Buffer.from(makePlaceholder(value));
      const start = huffmanBits(before);
      const end = start + huffmanBits(placeholder);
      const which = (encoding.huffman0 + (start % 8)) as Encoding;
      seen.add(which);
      const rows = encodings(placeholder.toString(), value).filter((chunk) => chunk.encoding === which);
      const expected = Buffer.concat(rows.map((row) => row.expected));
      const delta = Buffer.concat(rows.map((row) => row.delta));
      const result = huffman(Buffer.concat([before, placeholder, after]));
      const first = Math.floor(start / 8);
      const length = Math.ceil(end / 8) - first;
      assert.equal(rows.length, Math.ceil(length / chunkBytes));
      for (let at = 0; at < length; at++) {
        let mask = 0xff;
        if (at === 0) mask &= 0xff >> (start % 8);
        if (at === length - 1) mask &= 0xff << (-end & 7);
        assert.equal((result[first + at] as number) & mask, expected[at], `byte ${at}`);
        assert.equal((delta[at] as number) & ~mask & 0xff, 0, "a neighbour's bits stay");
        result[first + at] = (result[first + at] as number) ^ (delta[at] as number);
      }
      assert.deepEqual(result, huffman(Buffer.concat([before, value.reveal(), after])));
    }),
    { numRuns: 500 },
  );
  assert.equal(seen.size, 8);
});

test("a placeholder of another length is refused", () => {
  assert.throws(() => encodings("kloak:ABC", new SecretValue("12345678")), /9 bytes.*8/);
});
