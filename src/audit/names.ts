/**
 * Names of the kernel's numbers in audit records. A test compares them with bpf/types/common.h, and `reasons` also with
 * docs/reasons.md.
 */

/** `enum reason`, by number. */
export const reasons = [
  null,
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
export type Reason = NonNullable<(typeof reasons)[number]>;

/** `enum event_kind` of bpf/types/event.h. */
export const eventKinds = { substituted: 1, refused: 2, attest: 3, exec: 4 } as const;

/** `enum slot` without the header's name. */
export const slotNames: Readonly<Record<number, string>> = {
  1: "header",
  2: "header",
  4: "query",
  8: "path",
  16: "body",
  32: "any",
};

/** `enum encoding`: the alignment of base64 is nobody's business. */
export const encodingNames = ["raw", "base64", "base64", "base64"] as const;

/** `enum protocol`. */
export const protocolNames = [null, "http/1.1", "http/2"] as const;

/** `enum tls_version`. */
export const versionNames: Readonly<Record<number, string>> = { 2: "1.2", 3: "1.3" };

/** `enum cipher_algorithm`. */
export const cipherNames: Readonly<Record<number, string>> = {
  1: "aes-128-gcm",
  2: "aes-256-gcm",
  3: "chacha20-poly1305",
  255: "unknown",
};

/** `enum tls_stack`. */
export const stackNames = [null, "openssl"] as const;

/** `enum attest_mode`. */
export const attestNames = ["certificate", "dns", "none"] as const;
