/* Refusals as Events on the pods that they concern, so that `kubectl describe pod` says why a request failed. */
import type { AuditRecord } from "../audit/index.ts";
import { noticeOf } from "../audit/notice.ts";
import type { EventRecorder } from "../kube/events.ts";
import { resources } from "../kube/resource.ts";
import { eventReason } from "./shadow.ts";

export class PodEvents {
  readonly #events: EventRecorder;

  constructor({ events }: { readonly events: EventRecorder }) {
    this.#events = events;
  }

  /** The recorder counts what is said again, and limits what one pod may say. */
  async add(record: AuditRecord): Promise<void> {
    const { workload, outcome, reason } = record;
    const message = noticeOf(record);
    if (workload?.kind !== "pod" || message === undefined) return;
    const { namespace, name, uid } = workload;
    const pod = { metadata: { namespace, name, uid } };
    const word = outcome === "refused" ? `Secret${eventReason(`-${reason ?? "refused"}`)}` : "Unprotected";
    await this.#events.record(resources.pods, pod, "Warning", word, message);
  }
}
