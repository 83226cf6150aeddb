import type { AttestMode } from "../policy/policy.ts";

/** What is attested: that this address and port is this host. */
export interface AttestationKey {
  /** Text form; IPv4 dotted, also where the packet was IPv4-mapped. */
  readonly address: string;
  readonly port: number;
  /** Lower case, without trailing dot. Null: the destination is named by its address. */
  readonly name: string | null;
  readonly mode: AttestMode;
}

export interface Verdict {
  readonly granted: boolean;
  /** CLOCK_MONOTONIC */
  readonly expiresNs: bigint;
}

/** Where verdicts go: map `attestations` of the data plane, or `MemorySink`. */
export interface VerdictSink {
  put(key: AttestationKey, verdict: Verdict): void;
  remove(key: AttestationKey): void;
}

/** Why an address is not, or not yet, that host. */
export type FailureReason =
  | "expired"
  | "not-yet-valid"
  | "wrong-name"
  | "untrusted"
  | "self-signed"
  | "bad-certificate"
  | "unreachable"
  | "timeout"
  | "no-tls"
  | "not-resolved"
  | "address-not-allowed"
  | "not-allowed";

export interface Failure {
  readonly reason: FailureReason;
  /** For a log: no more than a line. */
  readonly detail: string;
  /** True: says nothing about who it is, so an earlier verdict stands and it is worth asking again soon. */
  readonly transient: boolean;
}

export function keyText({ address, port, name, mode }: AttestationKey): string {
  return `${mode} ${name ?? ""} ${address} ${port}`;
}

/** Verdicts in memory. */
export class MemorySink implements VerdictSink {
  readonly verdicts = new Map<string, Verdict>();

  put(key: AttestationKey, verdict: Verdict): void {
    this.verdicts.set(keyText(key), verdict);
  }

  remove(key: AttestationKey): void {
    this.verdicts.delete(keyText(key));
  }

  get(key: AttestationKey): Verdict | undefined {
    return this.verdicts.get(keyText(key));
  }
}
