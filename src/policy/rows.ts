/**
 * Rows of the kernel's tables, shaped like the structs of bpf/types/secret.h. Bytes and characters are byte arrays of
 * the field's size or shorter; what is missing is zero.
 */

export interface TokenKey {
  readonly workload: number;
  readonly token: Uint8Array;
}

export interface HeaderName {
  readonly length: number;
  readonly text: Uint8Array;
}

export interface SecretRow {
  readonly length: number;
  readonly markerOffset: number;
  readonly proof: number;
  readonly slots: number;
  readonly headerCount: number;
  readonly headers: readonly HeaderName[];
}

export interface SecretChunkKey {
  readonly secret: number;
  readonly encoding: number;
  readonly index: number;
}

export interface SecretChunk {
  readonly expected: Uint8Array;
  readonly delta: Uint8Array;
}

export interface HostKey {
  readonly secret: number;
  readonly kind: number;
  readonly name: bigint;
}

export interface HostRule {
  readonly ports: readonly number[];
  readonly portCount: number;
  readonly attest: number;
}

export interface NetworkKey {
  readonly prefix: number;
  /** In network byte order: what a little-endian machine stores as it is. */
  readonly secret: number;
  readonly address: Uint8Array;
}

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
  readonly networks: readonly Row<NetworkKey, HostRule>[];
  readonly secrets: readonly Row<number, SecretRow>[];
  readonly tokens: readonly Row<TokenKey, number>[];
}

/** bpf/types/common.h and secret.h; a test compares them with the headers. */
export const slotBits = { header: 1, named_header: 2, query: 4, path: 8, body: 16, any: 32 } as const;
export const hostKinds = { exact: 1, wildcard: 2 } as const;
export const attestNumbers = { certificate: 0, dns: 1, none: 2 } as const;
export const proofNumbers = { flow: 0, record: 1, none: 2 } as const;
