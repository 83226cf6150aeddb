/** How long verdicts hold, and how much the attestor does at a time. Milliseconds. */
export interface Limits {
  readonly grantedMs: number;
  readonly refusedMs: number;
  readonly dialTimeoutMs: number;
  /** Connections at a time. Addresses that nobody has resolved get half of them, so that they cannot hold up the others. */
  readonly concurrency: number;
  /** Attestations held in memory, and so in the kernel's map. */
  readonly entries: number;
  /** Before the second try of what failed for a passing reason. */
  readonly retryMs: number;
  readonly retryMaxMs: number;
  /** Names are resolved again after this, or after their time to live if that is longer; their addresses count for `resolvedMs`. */
  readonly resolveEveryMs: number;
  readonly resolvedMs: number;
  readonly addressesPerName: number;
}

export const defaultLimits: Limits = {
  grantedMs: 600_000,
  refusedMs: 30_000,
  dialTimeoutMs: 5_000,
  concurrency: 16,
  entries: 4096,
  retryMs: 500,
  retryMaxMs: 300_000,
  resolveEveryMs: 60_000,
  resolvedMs: 300_000,
  addressesPerName: 16,
};

/** Doubles with every failure. @param failures at least 1 */
export function backOff(limits: Limits, failures: number): number {
  return Math.min(limits.retryMs * 2 ** Math.min(failures - 1, 30), limits.retryMaxMs);
}
