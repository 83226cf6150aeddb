import type { AttestationKey, Verdict, VerdictSink } from "../attest/index.ts";
import type { AttestationKey as KernelKey, Dataplane } from "../dataplane/index.ts";
import { addressBytes } from "../policy/address.ts";
import { attestNumbers } from "../policy/rows.ts";

/** Verdicts where the wire side looks for them. */
export class KernelVerdicts implements VerdictSink {
  readonly #dataplane: Dataplane;

  constructor(dataplane: Dataplane) {
    this.#dataplane = dataplane;
  }

  put(key: AttestationKey, verdict: Verdict): void {
    const kernel = this.#key(key);
    if (kernel === undefined) return;
    this.#dataplane.maps.attestations.set(kernel, { expiresNs: verdict.expiresNs, granted: verdict.granted ? 1 : 0 });
  }

  remove(key: AttestationKey): void {
    const kernel = this.#key(key);
    if (kernel !== undefined) this.#dataplane.maps.attestations.delete(kernel);
  }

  #key({ address, name, port, mode }: AttestationKey): KernelKey | undefined {
    const bytes = addressBytes(address);
    if (bytes === undefined) return undefined;
    return {
      address: bytes,
      name: name === null ? 0n : this.#dataplane.hashName(name),
      port,
      mode: attestNumbers[mode],
    };
  }
}
