/* Pods that run with placeholders that their shadow has no more, as a metric that names them until they end. */
import type { Gauge } from "prom-client";
import type { BoundPod } from "./bindings.ts";

type Labels = "namespace" | "pod" | "secret";

export class OutdatedPods {
  readonly #gauge: Gauge<Labels>;
  readonly #byPod = new Map<string, Record<Labels, string>[]>();

  constructor(gauge: Gauge<Labels>) {
    this.#gauge = gauge;
  }

  /** @param shadow `namespace/name` */
  add(shadow: string, pods: readonly BoundPod[]): void {
    for (const { metadata } of pods) {
      const labels = { namespace: metadata.namespace ?? "", pod: metadata.name, secret: shadow };
      const uid = metadata.uid ?? "";
      this.#byPod.set(uid, [...(this.#byPod.get(uid) ?? []), labels]);
      this.#gauge.set(labels, 1);
    }
  }

  ended(uid: string): void {
    for (const labels of this.#byPod.get(uid) ?? []) this.#gauge.remove(labels);
    this.#byPod.delete(uid);
  }
}
