import {
  cipherAlgorithmNames,
  encoding,
  protocol,
  reasonNames,
  slot,
  tlsStackNames,
  tlsVersion,
} from "../dataplane/types.gen.ts";

/** Why a placeholder went out as it was; docs/reasons.md has the cause and remedy of each. */
export const reasons = [
  "host-not-allowed",
  "port-not-allowed",
  "no-sni",
  "encrypted-sni",
  "not-attested",
  "attestation-failed",
  "not-bound",
  "slot-not-allowed",
  "second-occurrence",
  "split-over-records",
  "unparsable-request",
  "unknown-cipher",
  "unknown-key",
  "unreadable-memory",
  "flow-older-than-agent",
  "unproven-record",
  "unproven-flow",
  "other-workload",
  "tables-full",
  "too-late",
  "expired",
] as const;
export type Reason = (typeof reasons)[number];

export function reasonName(number: number): Reason | null {
  return reasons.find((reason) => reason === reasonNames[number]) ?? null;
}

/** A slot without its header's name. */
export const slotNames: Readonly<Record<number, string>> = {
  [slot.header]: "header",
  [slot.namedHeader]: "header",
  [slot.query]: "query",
  [slot.path]: "path",
  [slot.body]: "body",
  [slot.any]: "any",
};

/** The alignment of base64 is nobody's business. */
export const encodingNames: Readonly<Record<number, string>> = {
  [encoding.raw]: "raw",
  [encoding.base64_0]: "base64",
  [encoding.base64_1]: "base64",
  [encoding.base64_2]: "base64",
  [encoding.huffman0]: "huffman",
  [encoding.huffman1]: "huffman",
  [encoding.huffman2]: "huffman",
  [encoding.huffman3]: "huffman",
  [encoding.huffman4]: "huffman",
  [encoding.huffman5]: "huffman",
  [encoding.huffman6]: "huffman",
  [encoding.huffman7]: "huffman",
  [encoding.percentUpper]: "percent",
  [encoding.percentLower]: "percent",
};

export const protocolNames: Readonly<Record<number, string>> = {
  [protocol.http1]: "http/1.1",
  [protocol.http2]: "http/2",
};

export const versionNames: Readonly<Record<number, string>> = {
  [tlsVersion.tls1_2]: "1.2",
  [tlsVersion.tls1_3]: "1.3",
};

export function cipherName(number: number): string | null {
  return number === 0 ? null : (cipherAlgorithmNames[number] ?? null);
}

export function stackName(number: number): string | null {
  return number === 0 ? null : (tlsStackNames[number] ?? null);
}
