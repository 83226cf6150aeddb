/* The programs of crypto.bpf.c, loaded into this kernel; each reads and writes one struct crypto_case. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { bytes, struct, u32, u64 } from "../../src/dataplane/codec.ts";
import { BpfObject, projectRoot } from "../../src/dataplane/index.ts";

/** What tests set and read of struct crypto_case. */
export interface CryptoCase {
  readonly key: Buffer;
  readonly keyBytes: number;
  readonly first: number;
  readonly count: number;
  readonly length: number;
  readonly aad: Buffer;
  readonly aadBytes: number;
  readonly in: Buffer;
  readonly out: Buffer;
  readonly hash: bigint;
  readonly nonce: Buffer;
  readonly counter: number;
  readonly name: Buffer;
  readonly text: Buffer;
  readonly delta: Buffer;
  readonly roundKeys: Buffer;
  readonly rounds: number;
  readonly stream: Buffer;
}

/** What is not given is zero; shorter bytes fill a field's start. */
export type CryptoInput = Partial<CryptoCase>;

export interface CryptoPrograms {
  /** Fails the test if the program does not return 0. */
  mustRun(program: string, input: CryptoInput): CryptoCase;
  /** Whether the program returns anything but 0. */
  refuses(program: string, input: CryptoInput): boolean;
  close(): void;
}

/** crypto.bpf.c asserts the offsets. */
const cryptoCase = struct<CryptoCase>(33912, {
  key: [0, bytes(32)],
  keyBytes: [32, u32],
  first: [36, u32],
  count: [40, u32],
  length: [44, u32],
  aad: [48, bytes(16)],
  aadBytes: [64, u32],
  in: [72, bytes(16)],
  out: [88, bytes(16)],
  hash: [104, u64],
  nonce: [112, bytes(12)],
  counter: [124, u32],
  name: [128, bytes(256)],
  text: [384, bytes(16400)],
  delta: [16784, bytes(16400)],
  roundKeys: [33184, bytes(240)],
  rounds: [33424, u32],
  stream: [33816, bytes(64)],
});

const blank = cryptoCase.decode(Buffer.alloc(cryptoCase.bytes));

/** macKey: 16 bytes. Throws what the verifier said if one of the programs is refused. */
export function loadCryptoPrograms(macKey: Buffer): CryptoPrograms {
  const path = join(projectRoot, "build/test/crypto.bpf.o");
  const object = new BpfObject(path, { variables: { mac_key: macKey } });
  const cases = object.map("cases", u32, cryptoCase);
  const run = (program: string, input: CryptoInput): number => {
    cases.set(0, { ...blank, ...input });
    return object.testRun(program).value;
  };
  return {
    mustRun: (program, input) => {
      assert.equal(run(program, input), 0, `${program} refuses its input`);
      const left = cases.get(0);
      assert.ok(left);
      return left;
    },
    refuses: (program, input) => run(program, input) !== 0,
    close: () => {
      cases.close();
      object.close();
    },
  };
}
