import { Buffer } from "node:buffer";
import { constants, type Encoding, encoding } from "../dataplane/types.gen.ts";
import type { SecretValue } from "./secret-value.ts";

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
  ];
}

/** As it is. */
export function rawForm(placeholder: Buffer, secret: Buffer): EncodedForm {
  return { expected: placeholder, delta: xor(placeholder, secret) };
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
