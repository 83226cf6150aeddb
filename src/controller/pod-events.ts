/*
 * Refusals as Events on the pods that they concern, so that `kubectl describe pod` says why a request failed. That a
 * placeholder was found where it is not bound is said of its Secret too, whose owner may never see that pod.
 */
import type { AuditRecord } from "../audit/index.ts";
import { noticeOf } from "../audit/notice.ts";
import type { EventRecorder } from "../kube/events.ts";
import type { KubeObject } from "../kube/objects.ts";
import { resources } from "../kube/resource.ts";
import { eventReason } from "./shadow.ts";

export interface PodEventsOptions {
  readonly events: EventRecorder;
  /** The managed Secret of this key. */
  readonly secret: (key: string) => KubeObject | undefined;
}

export class PodEvents {
  readonly #options: PodEventsOptions;

  constructor(options: PodEventsOptions) {
    this.#options = options;
  }

  /** The recorder counts what is said again, and limits what one pod may say. */
  async add(record: AuditRecord): Promise<void> {
    const { workload, outcome, reason } = record;
    const message = noticeOf(record);
    if (workload?.kind !== "pod" || message === undefined) return;
    const { namespace, name, uid } = workload;
    const pod = { metadata: { namespace, name, uid } };
    const word = outcome === "refused" ? `Secret${eventReason(`-${reason ?? "refused"}`)}` : "Unprotected";
    const { events, secret } = this.#options;
    await events.record(resources.pods, pod, "Warning", word, message);
    const original = reason === "not-bound" && record.secret !== null ? secret(keyOfSecret(record.secret)) : undefined;
    if (original === undefined) return;
    const text = `pod ${namespace}/${name} sends a placeholder of this Secret, which is not bound to it: it left as it is, and was worth nothing. Find out how the pod came by it`;
    await events.record(resources.secrets, original, "Warning", "PlaceholderElsewhere", text);
  }
}

/** `namespace/name` of `namespace/name/key`. */
function keyOfSecret(name: string): string {
  return name.split("/", 2).join("/");
}
