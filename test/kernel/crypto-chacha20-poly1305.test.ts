/* ChaCha20-Poly1305 as the kernel computes it. Needs root. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createDecipheriv } from "node:crypto";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { type CryptoCase, type CryptoInput, type CryptoPrograms, loadCryptoPrograms } from "./crypto-programs.ts";
import {
  hex,
  counting,
  ceilDiv,
  textMax,
  bytes,
  additionalData,
  textOf,
  deltaOf,
  xor,
  isZero,
  assertSame,
  sealChacha,
  type SealedRecord,
  runs,
} from "./crypto-records.ts";

let programs: CryptoPrograms;

before(() => {
  programs = loadCryptoPrograms(Buffer.alloc(16));
});

after(() => programs.close());

const run = (program: string, input: CryptoInput): CryptoCase => programs.mustRun(program, input);

const chachaBlocks = [
  {
    source: "RFC 8439 2.3.2",
    key: counting(32),
    nonce: "000000090000004a00000000",
    counter: 1,
    stream: `10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4ed2826446079faa0914c2d705d98b02a2
      b5129cd1de164eb9cbd083e8a2503c4e`,
  },
  {
    source: "RFC 8439 2.6.2",
    key: counting(160).subarray(128),
    nonce: "000000000001020304050607",
    counter: 0,
    stream: "8ad5a08b905f81cc815040274ab29471a833b637e3fd0da508dbb8e2fdd1a646",
  },
  {
    source: "RFC 8439 A.1, 1",
    key: Buffer.alloc(32),
    nonce: "000000000000000000000000",
    counter: 0,
    stream: `76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7da41597c5157488d7724e03fb8d84a37
      6a43b8f41518a11cc387b669b2ee6586`,
  },
];

for (const { source, key, nonce, counter, stream } of chachaBlocks) {
  test(`ChaCha20 makes a block: ${source}`, () => {
    const expected = hex(stream);
    const made = run("chacha_block", { key, nonce: hex(nonce), counter }).stream;
    assert.equal(made.subarray(0, expected.length).toString("hex"), expected.toString("hex"));
  });
}

const sunscreen = Buffer.from(
  "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
);

/** All of RFC 8439 2.8 with the kernel's programs. */
function sealHere(key: Buffer, nonce: Buffer, aad: Buffer, plain: Buffer): SealedRecord {
  const count = ceilDiv(plain.length, 16);
  const { stream } = run("chacha_block", { key, nonce, counter: 0 });
  const sealed = run("chacha_stream", { key, nonce, text: plain, length: plain.length, first: 0, count });
  const text = sealed.text.subarray(0, plain.length);
  assert.ok(isZero(sealed.text.subarray(plain.length, count * 16)), "the last block is zero after the text");
  return { text, tag: polyTag(stream, aad, text) };
}

function polyTag(stream: Buffer, aad: Buffer, text: Buffer): Buffer {
  const junk = Buffer.concat([text, Buffer.alloc(32, 0xee)]).subarray(0, 16400);
  return run("poly_tag", { stream, aad, aadBytes: aad.length, text: junk, length: text.length }).out;
}

test("ChaCha20-Poly1305 seals a record: RFC 8439 2.8.2", () => {
  const sealed = sealHere(
    counting(160).subarray(128),
    hex("070000004041424344454647"),
    hex("50515253c0c1c2c3c4c5c6c7"),
    sunscreen,
  );
  assert.equal(
    sealed.text.toString("hex"),
    hex(`d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71
      de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9d
      e576d26586cec64b6116`).toString("hex"),
  );
  assert.equal(sealed.tag.toString("hex"), "1ae10b594f09e26a7e902ecbd0600691");
});

test("ChaCha20-Poly1305 records are OpenSSL's at every length", () => {
  const checkRecord = (key: Buffer, nonce: Buffer, aad: Buffer, plain: Buffer): void => {
    const ours = sealHere(key, nonce, aad, plain);
    const theirs = sealChacha(key, nonce, aad, plain);
    assertSame(ours.text, theirs.text);
    assertSame(ours.tag, theirs.tag);
  };
  fc.assert(
    fc.property(bytes(32, 32), bytes(12, 12), additionalData(), textOf(1, textMax), (key, nonce, aad, plain) =>
      checkRecord(key, nonce, aad, plain),
    ),
    runs(150),
  );
  for (const length of [1, 15, 16, 17, 63, 64, 65, 16383, 16384, textMax]) {
    checkRecord(counting(32), counting(12), counting(5), Buffer.alloc(length, 0x61));
  }
});

test("an edited ChaCha20-Poly1305 record opens under the recomputed tag", () => {
  const edited = textOf(1, textMax).chain((plain) => fc.tuple(fc.constant(plain), deltaOf(plain.length)));
  fc.assert(
    fc.property(bytes(32, 32), bytes(12, 12), additionalData(), edited, (key, nonce, aad, [plain, delta]) => {
      const { text, tag } = sealChacha(key, nonce, aad, plain);
      const { stream } = run("chacha_block", { key, nonce, counter: 0 });
      const tagDelta = xor(polyTag(stream, aad, text), polyTag(stream, aad, xor(text, delta)));
      const decipher = createDecipheriv("chacha20-poly1305", key, nonce, { authTagLength: 16 });
      decipher.setAAD(aad, { plaintextLength: plain.length });
      decipher.setAuthTag(xor(tag, tagDelta));
      assertSame(Buffer.concat([decipher.update(xor(text, delta)), decipher.final()]), xor(plain, delta));
    }),
    runs(100),
  );
});

/** Little-endian, as RFC 8439 2.5.1 reads and writes its numbers. */
const numberOf = (bytes: Buffer): bigint => BigInt(`0x0${Buffer.from(bytes.toReversed()).toString("hex")}`);
const blockOf = (number: bigint): Buffer =>
  Buffer.from(Buffer.from(number.toString(16).padStart(32, "0"), "hex").toReversed());

/** RFC 8439 2.5.1 with whole numbers. */
function poly1305(oneTime: Buffer, message: Buffer): Buffer {
  const r = numberOf(oneTime.subarray(0, 16)) & 0x0ffffffc0ffffffc0ffffffc0fffffffn;
  const s = numberOf(oneTime.subarray(16, 32));
  let sum = 0n;
  for (let at = 0; at < message.length; at += 16) {
    sum = ((sum + numberOf(message.subarray(at, at + 16)) + (1n << 128n)) * r) % (2n ** 130n - 5n);
  }
  return blockOf((sum + s) % 2n ** 128n);
}

test("Poly1305 carries and reduces at its edges", () => {
  const edgy = fc.constantFrom(0x00, 0x01, 0x03, 0x7f, 0x80, 0xfb, 0xfc, 0xfe, 0xff);
  const edgyBytes = (length: number): fc.Arbitrary<Buffer> =>
    fc.oneof(
      edgy.map((byte) => Buffer.alloc(length, byte)),
      fc.array(edgy, { minLength: length, maxLength: length }).map((all) => Buffer.from(all)),
    );
  fc.assert(
    fc.property(
      edgyBytes(32),
      fc.nat(70).chain(edgyBytes),
      fc.constantFrom(0, 5, 13, 16),
      (oneTime, text, aadBytes) => {
        const aad = Buffer.alloc(aadBytes, 0xff);
        const pad = (part: Buffer): Buffer => Buffer.concat([part, Buffer.alloc(-part.length & 15)]);
        const lengths = Buffer.alloc(16);
        lengths.writeUInt32LE(aad.length, 0);
        lengths.writeUInt32LE(text.length, 8);
        const expected = poly1305(oneTime, Buffer.concat([pad(aad), pad(text), lengths]));
        assert.deepEqual(polyTag(Buffer.concat([oneTime, Buffer.alloc(32)]), aad, text), expected);
      },
    ),
    runs(3000),
  );
});

test("Poly1305 reduces sums just below, at and above p", () => {
  // r = 4, no additional data, one block: the sum is 4 * (4 * (b + 2^128) + 2^128 + length block). Solve for b.
  const p = 2n ** 130n - 5n;
  const r = 4n;
  const inverse = (() => {
    let result = 1n;
    for (let e = p - 2n, base = r; e > 0n; e >>= 1n, base = (base * base) % p) if (e & 1n) result = (result * base) % p;
    return result;
  })();
  const oneTime = Buffer.alloc(64);
  oneTime[0] = 4;
  const last = 2n ** 128n + (16n << 64n);
  let met = 0;
  for (let offset = -40n; offset <= 40n; offset++) {
    const target = (offset + p) % p;
    const block = ((((target * inverse - last) * inverse - 2n ** 128n) % p) + 2n * p) % p;
    if (block >= 2n ** 128n) continue;
    met++;
    const text = blockOf(block);
    const lengths = Buffer.alloc(16);
    lengths.writeUInt32LE(16, 8);
    const expected = poly1305(oneTime, Buffer.concat([text, lengths]));
    assert.deepEqual(polyTag(oneTime, Buffer.alloc(0), text), expected, `sum ${offset}`);
  }
  assert.ok(met > 5, `${met} such sums can be reached`);
});
