import { proof, slot } from "../dataplane/types.gen.ts";
import { encodings } from "../placeholder/encodings.ts";
import { huffmanBits } from "../placeholder/huffman.ts";
import type { SecretValue } from "../placeholder/secret-value.ts";
import { markerOffset, tokenOf } from "../placeholder/token.ts";
import { type HashName, hostRows, mergeHostRows, networkRows } from "./host-rows.ts";
import type { SecretPolicy } from "./policy.ts";
import type { KernelRows, Row, SecretRow, TokenKey } from "./rows.ts";
import type { Slots } from "./slots.ts";

/** A secret ready for the kernel. */
export interface BoundSecret {
  /** Given out once, from 1: a new value is a new number. */
  readonly number: number;
  readonly value: SecretValue;
  readonly placeholder: string;
  readonly policy: SecretPolicy;
  /** Numbers of the workloads that may use it, from 1. */
  readonly workloads: readonly number[];
}

/** Workload 0 holds every token that any workload has: somebody else's is told from text that only looks like one. */
const anyWorkload = 0;

/** All rows of one secret. Its rows for `anySecret` may be shared with others: see `compileSecrets`. */
export function compileSecret(secret: BoundSecret, hash: HashName): KernelRows {
  const { number, value, placeholder, policy, workloads } = secret;
  if (!Number.isInteger(number) || number < 1) throw new RangeError(`a secret's number is 1 or more, not ${number}`);
  return {
    secretChunks: encodings(placeholder, value).map(({ encoding, index, expected, delta }) => ({
      key: { secret: number, encoding, index },
      value: { expected, delta },
    })),
    hosts: hostRows(number, policy, hash),
    networks: networkRows(number, policy),
    secrets: [{ key: number, value: secretRow(value.length, placeholder, policy) }],
    tokens: [anyWorkload, ...workloads].map((workload) => tokenRow(workload, placeholder, number)),
  };
}

/** All rows of several secrets, each key once. */
export function compileSecrets(secrets: readonly BoundSecret[], hash: HashName): KernelRows {
  const rows = secrets.map((secret) => compileSecret(secret, hash));
  return {
    secretChunks: rows.flatMap((each) => each.secretChunks),
    hosts: mergeHostRows(rows.map((each) => each.hosts)),
    networks: rows.flatMap((each) => each.networks),
    secrets: rows.flatMap((each) => each.secrets),
    tokens: rows.flatMap((each) => each.tokens),
  };
}

/** "This workload may use this secret." */
export function tokenRow(workload: number, placeholder: string, secret: number): Row<TokenKey, number> {
  return { key: { workload, token: tokenOf(placeholder) }, value: secret };
}

function secretRow(length: number, placeholder: string, policy: SecretPolicy): SecretRow {
  const start = markerOffset(placeholder);
  const text = Buffer.from(placeholder, "latin1");
  const headers = policy.slots.headers.map((name) => ({ length: name.length, text: name }));
  return {
    length,
    markerOffset: start,
    huffmanBits: huffmanBits(text),
    huffmanStart: huffmanBits(text.subarray(0, start)),
    proof: proof[policy.proof],
    slots: slotSum(policy.slots),
    headerCount: headers.length,
    headers,
  };
}

function slotSum(slots: Slots): number {
  return (
    (slots.header ? slot.header : 0) |
    (slots.headers.length > 0 ? slot.namedHeader : 0) |
    (slots.query ? slot.query : 0) |
    (slots.path ? slot.path : 0) |
    (slots.body ? slot.body : 0)
  );
}
