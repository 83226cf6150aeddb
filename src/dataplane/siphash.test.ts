import assert from "node:assert/strict";
import { test } from "node:test";
import { siphash } from "./siphash.ts";

// vectors.h of the authors' reference implementation: key 00 01 … 0f, message 00 01 … of 0, 1, 2… bytes.
const vectors = [
  "310e0edd47db6f72",
  "fd67dc93c539f874",
  "5a4fa9d909806c0d",
  "2d7efbd796666785",
  "b7877127e09427cf",
  "8da699cd64557618",
  "cee3fe586e46c9cb",
  "37d1018bf50002ab",
  "6224939a79f5f593",
  "b0e4a90bdf82009e",
  "f3b9dd94c5bb5d7a",
  "a7ad6b22462fb3f4",
  "fbe50e86bc8f1e75",
  "903d84c02756ea14",
  "eef27a8e90ca23f7",
  "e545be4961ca29a1",
];

const row = (length: number) => Uint8Array.from({ length }, (_, index) => index);

for (const [length, expected] of vectors.entries())
  test(`the authors' vector of ${length} bytes`, () => {
    const hash = Buffer.alloc(8);
    hash.writeBigUInt64LE(siphash(row(16), row(length)));
    assert.equal(hash.toString("hex"), expected);
  });

test("a key of another length is refused", () => {
  assert.throws(() => siphash(row(8), row(0)), /16 bytes/);
});

test("key and message may lie anywhere in their buffers", () => {
  const shifted = (bytes: Uint8Array) =>
    Buffer.concat([Buffer.alloc(3), bytes, Buffer.alloc(9)]).subarray(3, 3 + bytes.length);
  assert.equal(siphash(shifted(row(16)), shifted(row(15))), 0xa129ca6149be45e5n);
});
