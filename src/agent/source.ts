/*
 * Where an agent that runs for long learns what to protect. The agent knows this interface only; a controller of a
 * cluster is one source, the control socket another.
 */
import type { Workload } from "../audit/index.ts";
import type { SecretValue } from "../placeholder/index.ts";
import type { PolicyInput } from "../policy/policy.ts";

/** A workload that is to be protected. */
export interface WantedWorkload {
  /** The source's name for it, the same whichever agent asks. */
  readonly id: string;
  /** Its network namespace: `/run/netns/NAME`, `/proc/PID/ns/net`. */
  readonly netns: string;
  /** Name of the host's end of its veth. */
  readonly interface: string;
  /** A process in it whose mounts are its own: programs and libraries are held from there. */
  readonly process: number | undefined;
  readonly about: Workload;
}

/** A secret that workloads may use. */
export interface WantedSecret {
  readonly id: string;
  /** As audit records name it. */
  readonly name: string;
  readonly value: SecretValue;
  readonly placeholder: string;
  /** As written. */
  readonly settings: PolicyInput;
  /** Extra roots for attestation, PEM. */
  readonly roots: readonly string[];
  /** Ids of workloads; those that are not known are passed over, so that a source says the secret again when one comes. */
  readonly workloads: readonly string[];
}

/** What a source asks of the agent. Each may be said again, and then changes only what is different. */
export interface WorkloadSink {
  /** Resolves to whether it was not known before, to an earlier agent either. */
  workload(wanted: WantedWorkload): Promise<boolean>;
  workloadGone(id: string): void;
  secret(wanted: WantedSecret): void;
  secretGone(id: string): void;
  /** Ids of secrets that are bound, also by an earlier agent. */
  secretIds(): Iterable<string>;
  /** Leaves a secret of an earlier agent as it is. */
  keepSecret(id: string): void;
  /** All that is wanted has been said: what an earlier agent had and nobody has asked for goes. */
  settled(): void;
}

export interface WorkloadSource {
  /** Works until the signal. */
  run(sink: WorkloadSink, signal: AbortSignal): Promise<void>;
}
