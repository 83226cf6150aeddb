import { Buffer } from "node:buffer";
import { constants, type Encoding, encoding } from "../dataplane/types.gen.ts";
import { type HuffmanCode, huffmanCodes } from "./huffman.ts";
import type { SecretValue } from "./secret-value.ts";
import { marker } from "./token.ts";

export const chunkBytes = constants.secretChunkBytes;

/** One row of map `secret_chunks` without its secret's number: 64 bytes each, the last ones zero-padded. */
export interface EncodedChunk {
  readonly encoding: Encoding;
  /** Offset in the encoded text / 64. */
  readonly index: number;
  readonly expected: Buffer;
  readonly delta: Buffer;
}

/** A placeholder as it stands in the text, and what turns it into the secret; `struct secret_chunk` has the rules. */
export interface EncodedForm {
  readonly expected: Buffer;
  readonly delta: Buffer;
}

/** All forms in which the kernel recognises a placeholder, in chunks. */
export function encodings(placeholder: string, value: SecretValue): readonly EncodedChunk[] {
  const text = Buffer.from(placeholder, "latin1");
  const secret = value.reveal();
  if (text.length !== secret.length) {
    throw new RangeError(`a placeholder of ${text.length} bytes cannot stand for a value of ${secret.length}`);
  }
  return [
    ...chunks(encoding.raw, rawForm(text, secret)),
    ...chunks(encoding.base64_0, base64Form(text, secret, 0)),
    ...chunks(encoding.base64_1, base64Form(text, secret, 1)),
    ...chunks(encoding.base64_2, base64Form(text, secret, 2)),
    ...chunks(encoding.percentUpper, percentForm(text, secret, "upper")),
    ...chunks(encoding.percentLower, percentForm(text, secret, "lower")),
    ...huffmanEncodings.flatMap((which, before) => chunks(which, huffmanForm(text, secret, before))),
  ];
}

/** As it is. */
export function rawForm(placeholder: Buffer, secret: Buffer): EncodedForm {
  return { expected: placeholder, delta: xor(placeholder, secret) };
}

/**
 * With the marker's colon percent-encoded (RFC 3986 2.1), as most clients send it in a URL; so is the secret's byte in its
 * place, whatever it is. Two bytes longer than raw.
 */
export function percentForm(placeholder: Buffer, secret: Buffer, digits: "upper" | "lower"): EncodedForm {
  const colon = placeholder.indexOf(marker) + marker.length - 1;
  const encode = (text: Buffer) => {
    const hex = (text[colon] as number).toString(16).padStart(2, "0");
    const code = Buffer.from(`%${digits === "upper" ? hex.toUpperCase() : hex}`, "latin1");
    return Buffer.concat([text.subarray(0, colon), code, text.subarray(colon + 1)]);
  };
  return rawForm(encode(placeholder), encode(secret));
}

/**
 * The base64 characters (RFC 4648 4) that hold at least one bit of the placeholder when `before` bytes of its first
 * group of three belong to the text before it. A first or last character that also holds bits of a neighbour is kept
 * with those bits zero, and its delta is that of the 6-bit values: the kernel compares and changes only our bits.
 */
export function base64Form(placeholder: Buffer, secret: Buffer, before: 0 | 1 | 2): EncodedForm {
  const expected = base64Characters(placeholder, before);
  const replaced = base64Characters(secret, before);
  const delta = xor(expected, replaced);
  const first = 0;
  const last = expected.length - 1;
  if (before !== 0) delta[first] = sixBits(expected[first]) ^ sixBits(replaced[first]);
  if ((before + placeholder.length) % 3 !== 0) delta[last] = sixBits(expected[last]) ^ sixBits(replaced[last]);
  return { expected, delta };
}

/** By the bits of the first byte that belong to the text before. */
const huffmanEncodings: readonly Encoding[] = [
  encoding.huffman0,
  encoding.huffman1,
  encoding.huffman2,
  encoding.huffman3,
  encoding.huffman4,
  encoding.huffman5,
  encoding.huffman6,
  encoding.huffman7,
];

/**
 * The bytes that hold at least one bit of the placeholder in HPACK's Huffman code when `before` bits of the first belong
 * to the text before it; neighbours' bits are zero.
 */
export function huffmanForm(placeholder: Buffer, secret: Buffer, before: number): EncodedForm {
  const expected = huffmanBytes(placeholder, before);
  const replaced = huffmanBytes(secret, before);
  if (expected.length !== replaced.length) throw new RangeError("a placeholder has the Huffman length of its value");
  return { expected, delta: xor(expected, replaced) };
}

function huffmanBytes(text: Buffer, before: number): Buffer {
  const bytes: number[] = [];
  let pending = 0;
  let bits = before;
  for (const byte of text) {
    const code = huffmanCodes[byte] as HuffmanCode;
    for (let at = code.bits - 1; at >= 0; at--) {
      pending = (pending << 1) | ((code.code >>> at) & 1);
      bits += 1;
      if (bits < 8) continue;
      bytes.push(pending);
      pending = 0;
      bits = 0;
    }
  }
  if (bits > 0) bytes.push(pending << (8 - bits));
  return Buffer.from(bytes);
}

/** The bytes with zero neighbours, encoded, without the characters in which they have no bit. */
function base64Characters(bytes: Buffer, before: 0 | 1 | 2): Buffer {
  const text = Buffer.concat([Buffer.alloc(before), bytes])
    .toString("base64")
    .replaceAll("=", "");
  return Buffer.from(text.slice(before), "latin1");
}

function sixBits(character: number | undefined): number {
  return base64Alphabet.indexOf(String.fromCharCode(character ?? 0));
}

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

function xor(left: Buffer, right: Buffer): Buffer {
  const result = Buffer.alloc(left.length);
  for (const [at, byte] of left.entries()) result[at] = byte ^ (right[at] as number);
  return result;
}

function chunks(which: Encoding, { expected, delta }: EncodedForm): readonly EncodedChunk[] {
  const count = Math.ceil(expected.length / chunkBytes);
  return Array.from({ length: count }, (_, index) => ({
    encoding: which,
    index,
    expected: padded(expected.subarray(index * chunkBytes, (index + 1) * chunkBytes)),
    delta: padded(delta.subarray(index * chunkBytes, (index + 1) * chunkBytes)),
  }));
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes], chunkBytes);
}
