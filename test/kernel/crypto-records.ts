/* What the tests of the ciphers share: records to seal, keys to seal them with, and OpenSSL to compare with. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createCipheriv } from "node:crypto";
import fc from "fast-check";
import type { CryptoInput } from "./crypto-programs.ts";

/** RFC 8446 5.2: 16384 bytes and the inner type. */
export const textMax = 16385;

/** Parameters of fast-check: `usual` random records, or as many as the fuzzing suite wants. */
export const runs = (usual: number): { readonly numRuns: number } => ({
  numRuns: Number(process.env["KLOAK_FUZZ_RUNS"]) || usual,
});

export const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ""), "hex");
export const counting = (length: number): Buffer => Buffer.from(Array.from({ length }, (_, i) => i & 0xff));
export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

/** Edits as a patch has them: a few runs of changed bytes, anywhere, in a delta as long as the record. */
export function deltaOf(length: number): fc.Arbitrary<Buffer> {
  const run = fc.tuple(fc.nat(length - 1), bytes(1, 300));
  return fc.array(run, { minLength: 0, maxLength: 4 }).map((runs) => {
    const delta = Buffer.alloc(length);
    for (const [at, bits] of runs) bits.copy(delta, at, 0, length - at);
    return delta;
  });
}

export const xor = (a: Buffer, b: Buffer): Buffer => Buffer.from(a.map((byte, i) => byte ^ (b[i] as number)));
export const isZero = (buffer: Buffer): boolean => buffer.every((byte) => byte === 0);

export function bytes(minLength: number, maxLength: number): fc.Arbitrary<Buffer> {
  return fc.uint8Array({ minLength, maxLength, size: "max" }).map((array) => Buffer.from(array));
}

export function aesKey(): fc.Arbitrary<Buffer> {
  return fc.oneof(bytes(16, 16), bytes(32, 32));
}

/** 5 bytes in TLS 1.3, 13 in TLS 1.2. */
export function additionalData(): fc.Arbitrary<Buffer> {
  return fc.oneof(bytes(5, 5), bytes(13, 13), bytes(16, 16));
}

/** Long texts from a seed: random enough, and quick to make; every length as likely as any other. */
export function textOf(min: number, max: number): fc.Arbitrary<Buffer> {
  return fc
    .tuple(fc.oneof(fc.integer({ min, max }), fc.integer({ min, max: Math.min(max, min + 200) })), bytes(16, 16))
    .map(([length, seed]) => createCipheriv("aes-128-ctr", seed, Buffer.alloc(16)).update(Buffer.alloc(length)));
}

export const keyInput = (key: Buffer): CryptoInput => ({ key, keyBytes: key.length });

/** As deepEqual, but says where they part: its own account of 16 KiB takes a second each time a counterexample shrinks. */
export function assertSame(actual: Buffer, expected: Buffer): void {
  if (actual.equals(expected)) return;
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  const around = (buffer: Buffer): string => buffer.subarray(at, at + 16).toString("hex");
  assert.fail(
    `${actual.length} and ${expected.length} bytes, other from byte ${at}: ${around(actual)}, not ${around(expected)}`,
  );
}

/** By OpenSSL. */
export function sealGcm(key: Buffer, nonce: Buffer, aad: Buffer, plain: Buffer): SealedRecord {
  const cipher = createCipheriv(key.length === 16 ? "aes-128-gcm" : "aes-256-gcm", key, nonce);
  cipher.setAAD(aad);
  const text = Buffer.concat([cipher.update(plain), cipher.final()]);
  return { text, tag: cipher.getAuthTag() };
}

export interface SealedRecord {
  readonly text: Buffer;
  readonly tag: Buffer;
}

/** By OpenSSL. */
export function sealChacha(key: Buffer, nonce: Buffer, aad: Buffer, plain: Buffer): SealedRecord {
  const cipher = createCipheriv("chacha20-poly1305", key, nonce, { authTagLength: 16 });
  cipher.setAAD(aad, { plaintextLength: plain.length });
  const text = Buffer.concat([cipher.update(plain), cipher.final()]);
  return { text, tag: cipher.getAuthTag() };
}
