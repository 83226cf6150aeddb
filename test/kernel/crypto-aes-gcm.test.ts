/* AES and its counter mode as the kernel computes them, and what an edit does to the tag of AES-GCM. Needs root. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createCipheriv, createDecipheriv } from "node:crypto";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { type CryptoCase, type CryptoInput, type CryptoPrograms, loadCryptoPrograms } from "./crypto-programs.ts";
import {
  hex,
  counting,
  ceilDiv,
  textMax,
  bytes,
  aesKey,
  additionalData,
  textOf,
  deltaOf,
  xor,
  isZero,
  keyInput,
  assertSame,
  sealGcm,
  runs,
} from "./crypto-records.ts";

let programs: CryptoPrograms;

before(() => {
  programs = loadCryptoPrograms(Buffer.alloc(16));
});

after(() => programs.close());

const run = (program: string, input: CryptoInput): CryptoCase => programs.mustRun(program, input);

test("key expansion is that of FIPS 197, appendix A", () => {
  const expansions = [
    { key: "2b7e151628aed2a6abf7158809cf4f3c", words: { 4: "a0fafe17", 10: "5935807a", 43: "b6630ca6" }, rounds: 10 },
    {
      key: "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
      words: { 8: "9ba35411", 12: "a8b09c1a", 59: "706c631e" },
      rounds: 14,
    },
  ];
  for (const { key, words, rounds } of expansions) {
    const { roundKeys, rounds: made } = run("expand_key", keyInput(hex(key)));
    assert.equal(made, rounds);
    for (const [index, word] of Object.entries(words)) {
      assert.equal(roundKeys.subarray(Number(index) * 4, Number(index) * 4 + 4).toString("hex"), word, `w[${index}]`);
    }
  }
  for (const keyBytes of [0, 15, 17, 24, 31, 33])
    assert.ok(programs.refuses("expand_key", { keyBytes }), `${keyBytes} bytes`);
});

const aesVectors = [
  {
    source: "FIPS 197 B",
    key: "2b7e151628aed2a6abf7158809cf4f3c",
    plain: "3243f6a8885a308d313198a2e0370734",
    sealed: "3925841d02dc09fbdc118597196a0b32",
  },
  {
    source: "FIPS 197 C.1",
    key: "000102030405060708090a0b0c0d0e0f",
    plain: "00112233445566778899aabbccddeeff",
    sealed: "69c4e0d86a7b0430d8cdb78070b4c55a",
  },
  {
    source: "FIPS 197 C.3",
    key: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    plain: "00112233445566778899aabbccddeeff",
    sealed: "8ea2b7ca516745bfeafc49904b496089",
  },
  {
    source: "GCM test case 1, H",
    key: "00000000000000000000000000000000",
    plain: "00000000000000000000000000000000",
    sealed: "66e94bd4ef8a2c3b884cfa59ca342b2e",
  },
  {
    source: "GCM test case 15, H",
    key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
    plain: "00000000000000000000000000000000",
    sealed: "acbef20579b4b8ebce889bac8732dad7",
  },
];

for (const { source, key, plain, sealed } of aesVectors) {
  test(`AES encrypts a block: ${source}`, () => {
    assert.equal(run("encrypt_block", { ...keyInput(hex(key)), in: hex(plain) }).out.toString("hex"), sealed);
  });
}

test("AES encrypts random blocks as OpenSSL does", () => {
  fc.assert(
    fc.property(aesKey(), bytes(16, 16), (key, block) => {
      const cipher = createCipheriv(`aes-${key.length * 8}-ecb`, key, null).setAutoPadding(false);
      assert.deepEqual(run("encrypt_block", { ...keyInput(key), in: block }).out, cipher.update(block));
    }),
    runs(300),
  );
});

const gcmText = hex(`d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525
  b16aedf5aa0de657ba637b391aafd255`);

const gcmVectors = [
  {
    source: "GCM test case 2",
    key: "00000000000000000000000000000000",
    nonce: "000000000000000000000000",
    plain: Buffer.alloc(16),
    sealed: "0388dace60b6a392f328c2b971b2fe78",
  },
  {
    source: "GCM test case 3",
    key: "feffe9928665731c6d6a8f9467308308",
    nonce: "cafebabefacedbaddecaf888",
    plain: gcmText,
    sealed: `42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05
      1ba30b396a0aac973d58e091473f5985`,
  },
  {
    source: "GCM test case 15",
    key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
    nonce: "cafebabefacedbaddecaf888",
    plain: gcmText,
    sealed: `522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838
      c5f61e6393ba7a0abcc9f662898015ad`,
  },
];

for (const { source, key, nonce, plain, sealed } of gcmVectors) {
  test(`AES counter mode seals a record: ${source}`, () => {
    const input = { ...keyInput(hex(key)), nonce: hex(nonce), text: plain, length: plain.length };
    const { text } = run("aes_stream", { ...input, first: 0, count: ceilDiv(plain.length, 16) });
    assert.equal(text.subarray(0, plain.length).toString("hex"), hex(sealed).toString("hex"));
  });
}

test("AES-GCM ciphertext is OpenSSL's at every length", () => {
  const check = (key: Buffer, nonce: Buffer, plain: Buffer): void => {
    const { text: sealed } = sealGcm(key, nonce, Buffer.alloc(0), plain);
    const count = ceilDiv(plain.length, 16);
    const { text } = run("aes_stream", { ...keyInput(key), nonce, text: plain, length: plain.length, first: 0, count });
    assertSame(text.subarray(0, plain.length), sealed);
    assert.ok(isZero(text.subarray(plain.length, count * 16)), "the last block is zero after the text");
  };
  fc.assert(fc.property(aesKey(), bytes(12, 12), textOf(1, textMax), check), runs(150));
  for (const length of [1, 15, 16, 17, 16383, 16384, textMax]) {
    check(counting(16), counting(12), Buffer.alloc(length, 0x61));
    check(counting(32), counting(12), Buffer.alloc(length, 0x61));
  }
});

test("an AES-GCM record with the delta XORed to text and tag opens as the edited text", () => {
  const check = (key: Buffer, nonce: Buffer, aad: Buffer, plain: Buffer, delta: Buffer): void => {
    const { text: sealed, tag } = sealGcm(key, nonce, aad, plain);
    const { out } = run("gcm_tag_delta", { ...keyInput(key), delta, length: plain.length });
    const decipher = createDecipheriv(key.length === 16 ? "aes-128-gcm" : "aes-256-gcm", key, nonce);
    decipher.setAAD(aad);
    decipher.setAuthTag(xor(tag, out));
    const opened = Buffer.concat([decipher.update(xor(sealed, delta)), decipher.final()]);
    assertSame(opened, xor(plain, delta));
    if (isZero(delta)) assert.ok(isZero(out));
  };
  const edited = textOf(1, textMax).chain((plain) => fc.tuple(fc.constant(plain), deltaOf(plain.length)));
  fc.assert(
    fc.property(aesKey(), bytes(12, 12), additionalData(), edited, (key, nonce, aad, [plain, delta]) =>
      check(key, nonce, aad, plain, delta),
    ),
    runs(200),
  );
  for (const length of [1, 15, 16, 17, 32, 1024, 4096, 16384, textMax]) {
    const plain = Buffer.alloc(length, 0x61);
    check(counting(32), counting(12), counting(5), plain, Buffer.alloc(length, 0xff));
    for (const at of [0, length - 1]) {
      const delta = Buffer.alloc(length);
      delta[at] = 0x80;
      check(counting(16), counting(12), counting(13), plain, delta);
    }
  }
});
