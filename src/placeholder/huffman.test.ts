import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { huffmanBits, huffmanCodeBits } from "./huffman.ts";

test("the code lengths fill the code exactly (Kraft), with EOS at 30 bits", () => {
  let sum = 2 ** -30;
  for (let byte = 0; byte < 256; byte++) sum += 2 ** -huffmanCodeBits(byte);
  assert.equal(sum, 1);
});

// RFC 7541 C.4 and C.6: strings and the bytes that they take
const examples: readonly (readonly [string, number])[] = [
  ["www.example.com", 12],
  ["no-cache", 6],
  ["custom-key", 8],
  ["custom-value", 9],
  ["302", 2],
  ["private", 5],
  ["Mon, 21 Oct 2013 20:13:21 GMT", 22],
  ["https://www.example.com", 17],
  ["foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1", 45],
];

for (const [text, bytes] of examples) {
  test(`"${text}" takes ${bytes} bytes`, () => {
    assert.equal(Math.ceil(huffmanBits(Buffer.from(text)) / 8), bytes);
  });
}
