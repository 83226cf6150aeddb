/* Which part of a record the ciphers touch, and that they touch nothing else. Needs root. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { type CryptoCase, type CryptoInput, type CryptoPrograms, loadCryptoPrograms } from "./crypto-programs.ts";
import {
  counting,
  textMax,
  bytes,
  aesKey,
  textOf,
  keyInput,
  assertSame,
  sealGcm,
  sealChacha,
  runs,
} from "./crypto-records.ts";

let programs: CryptoPrograms;

before(() => {
  programs = loadCryptoPrograms(Buffer.alloc(16));
});

after(() => programs.close());

const run = (program: string, input: CryptoInput): CryptoCase => programs.mustRun(program, input);

test("a part of a record's keystream changes that part alone", () => {
  fc.assert(
    fc.property(
      streamCipher(),
      bytes(12, 12),
      textOf(16385, 16385),
      fc.nat(1025),
      fc.nat(1025),
      (cipher, nonce, plain, a, b) => {
        const first = Math.min(a, b);
        const count = Math.max(a, b) - first;
        const { text } = run(cipher.program, { ...cipher.input, nonce, text: plain, length: textMax, first, count });
        const expected = Buffer.from(plain);
        cipher.seal(nonce, plain).copy(expected, first * 16, first * 16, (first + count) * 16);
        assertSame(text.subarray(0, textMax), expected);
      },
    ),
    runs(100),
  );
});

test("blocks outside the longest record are refused", () => {
  const outside = [
    { first: 0, count: 1026 },
    { first: 1026, count: 0 },
    { first: 1025, count: 1 },
    { first: 1, count: 0xffffffff },
    { first: 0xffffffff, count: 1 },
  ];
  for (const range of outside) {
    for (const program of ["aes_stream", "chacha_stream", "hash_text"]) {
      assert.ok(
        programs.refuses(program, { ...keyInput(counting(16)), ...range }),
        `${program} ${JSON.stringify(range)}`,
      );
    }
  }
  assert.ok(programs.refuses("poly_tag", { length: textMax + 1 }));
  assert.ok(programs.refuses("gcm_tag_delta", { ...keyInput(counting(16)), length: textMax + 16 }));
});

interface StreamCipher {
  readonly program: string;
  readonly input: CryptoInput;
  readonly seal: (nonce: Buffer, plain: Buffer) => Buffer;
}

function streamCipher(): fc.Arbitrary<StreamCipher> {
  const none = Buffer.alloc(0);
  const aes = aesKey().map((key) => ({
    program: "aes_stream",
    input: keyInput(key),
    seal: (nonce: Buffer, plain: Buffer) => sealGcm(key, nonce, none, plain).text,
  }));
  const chacha = bytes(32, 32).map((key) => ({
    program: "chacha_stream",
    input: { key },
    seal: (nonce: Buffer, plain: Buffer) => sealChacha(key, nonce, none, plain).text,
  }));
  return fc.oneof(aes, chacha);
}
