/** Rows of the maps that the cipher side and the agent write, in the kernel's layout. */
import * as gen from "../../src/dataplane/types.gen.ts";

export { attestMode, hostKind, markFlag, proof, protocol, reason, slot } from "../../src/dataplane/types.gen.ts";

export const version = { tls12: gen.tlsVersion.tls1_2, tls13: gen.tlsVersion.tls1_3 } as const;
export const algorithm = { aes128: 1, aes256: 2, chacha20: 3 } as const;

export interface Edit {
  readonly secret: number;
  readonly offset: number;
  readonly length: number;
  readonly slot?: number;
  readonly hostAllowed?: boolean;
  readonly proof?: number;
}

export function interfaceRow(workload: number, leaseNs = 0n): Buffer {
  return gen.interfaceCodec.encode({ workload, leaseNs });
}

export function keyName(workload: number, id: Buffer): Buffer {
  return gen.keyNameCodec.encode({ workload, id });
}

export function sighting(name: Buffer, serial: bigint, index: number, sealedNs: bigint): Buffer {
  return gen.sightingCodec.encode({ key: gen.keyNameCodec.decode(name), serial, index, sealedNs });
}

export function recordMark(mark: gen.RecordMark): Buffer {
  return gen.recordMarkCodec.encode(mark);
}

/** A key as far as the wire side looks at it. */
export class KeyState {
  readonly bytes: Buffer;

  constructor(valueBytes: number, serial: bigint, cipher: number, tlsVersion: number) {
    this.bytes = Buffer.alloc(valueBytes);
    this.bytes.writeBigUInt64LE(serial, gen.offsets.keyState.serial);
    this.bytes[gen.offsets.keyState.algorithm] = cipher;
    this.bytes[gen.offsets.keyState.version] = tlsVersion;
    this.bytes[gen.offsets.keyState.stack] = gen.tlsStack.openssl;
  }

  mark(index: number, mark: Uint8Array): void {
    this.bytes.set(mark, gen.offsets.keyState.ring + (index % gen.constants.markRing) * gen.recordMarkCodec.bytes);
  }
}

export function patchKey(serial: bigint, index: number, chunk = 0): Buffer {
  return gen.patchKeyCodec.encode({ serial, index, chunk });
}

export function patch(
  row: Pick<
    gen.Patch,
    | "host"
    | "sealedNs"
    | "workload"
    | "tagDelta"
    | "length"
    | "regionBytes"
    | "algorithm"
    | "version"
    | "protocol"
    | "reason"
    | "fingerprint"
  > &
    Partial<Pick<gen.Patch, "keeps">>,
  edits: readonly Edit[],
): Buffer {
  return gen.patchCodec.encode({
    keeps: 0,
    ...row,
    process: 4242,
    command: "curl",
    stack: gen.tlsStack.openssl,
    editCount: row.reason === gen.reason.none ? edits.length : 0,
    edits: edits.map((edit) => ({
      secret: edit.secret,
      offset: edit.offset,
      length: edit.length,
      encoding: gen.encoding.raw,
      slot: edit.slot ?? gen.slot.header,
      hostAllowed: edit.hostAllowed ? 1 : 0,
      proof: edit.proof ?? gen.proof.flow,
      header: { length: 13, text: "authorization" },
    })),
  });
}

export function regionChunk(workload: number, ciphertext: Buffer, delta: Buffer): Buffer {
  return gen.regionChunkCodec.encode({ workload, ciphertext, delta });
}

export function hostKey(secret: number, kind: number, name: bigint): Buffer {
  return gen.hostKeyCodec.encode({ secret, kind, name });
}

export function hostRule(ports: readonly number[] = [], attest: number = gen.attestMode.certificate): Buffer {
  return gen.hostRuleCodec.encode({ ports, portCount: ports.length, attest });
}

export function networkKey(secret: number, address: Buffer, bits: number): Buffer {
  /* The trie compares bytes from the first on: the number stands in network byte order. */
  const number = Buffer.alloc(4);
  number.writeUInt32BE(secret);
  return gen.networkKeyCodec.encode({ prefix: 32 + bits, secret: number.readUInt32LE(), address });
}

export function attestationKey(address: Buffer, name: bigint, port: number, mode: number): Buffer {
  return gen.attestationKeyCodec.encode({ address, name, port, mode });
}

export function attestation(expiresNs: bigint, granted: boolean): Buffer {
  return gen.attestationCodec.encode({ expiresNs, granted: granted ? 1 : 0 });
}

export interface WireEvent {
  readonly kind: string;
  readonly workload: number;
  readonly secret: number;
  readonly address: Buffer;
  readonly port: number;
  readonly reason: string;
  readonly attest: number;
  readonly host: string;
}

export function decodeEvent(bytes: Buffer): WireEvent {
  const event = gen.eventCodec.decode(bytes);
  return {
    ...event,
    kind: gen.eventKindNames[event.kind] ?? "unknown",
    reason: gen.reasonNames[event.reason] ?? "unknown",
    host: event.host.slice(0, event.hostLength),
  };
}
