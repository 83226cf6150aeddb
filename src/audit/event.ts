/** `struct event` of bpf/types/event.h as far as records are made of it. */
export interface KernelEvent {
  /** CLOCK_MONOTONIC. */
  readonly timeNs: bigint;
  readonly kind: number;
  readonly workload: number;
  readonly secret: number;
  readonly process: number;
  readonly command: string;
  readonly address: Uint8Array;
  readonly port: number;
  readonly reason: number;
  readonly slot: number;
  readonly encoding: number;
  readonly protocol: number;
  readonly version: number;
  readonly algorithm: number;
  readonly stack: number;
  readonly attest: number;
  readonly ipv4: number;
  readonly hostLength: number;
  readonly header: { readonly length: number; readonly text: string };
  readonly host: string;
}
