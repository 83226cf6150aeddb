/** Rows of the kernel's tables that policies are compiled to; the structs are those of bpf/types/secret.h. */
import {
  attestMode,
  type HostKey,
  type HostRule,
  type NetworkKey,
  type Secret,
  type SecretChunk,
  type SecretChunkKey,
  type TokenKey,
} from "../dataplane/types.gen.ts";

export type { HostKey, HostRule, NetworkKey, SecretChunk, SecretChunkKey, TokenKey };
/** Value of `secrets`; not the secret itself. */
export type SecretRow = Secret;

export interface Row<Key, Value> {
  readonly key: Key;
  readonly value: Value;
}

/**
 * What one or several secrets put into the tables. The fields stand in the order in which they must be written (a token
 * that is found leads to everything else); remove in the opposite order.
 */
export interface KernelRows {
  readonly secretChunks: readonly Row<SecretChunkKey, SecretChunk>[];
  readonly hosts: readonly Row<HostKey, HostRule>[];
  /** `key.secret` is in network byte order. */
  readonly networks: readonly Row<NetworkKey, HostRule>[];
  readonly secrets: readonly Row<number, SecretRow>[];
  readonly tokens: readonly Row<TokenKey, number>[];
}

/** By the names of `getkloak.io/attest`. */
export const attestNumbers = attestMode;
