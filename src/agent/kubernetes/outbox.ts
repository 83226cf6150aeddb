/* Audit records on their way to the controller: kept while it is away, up to a number, and counted beyond. */
import type { AuditRecord } from "../../audit/index.ts";
import { Backoff, sleep } from "../../kube/backoff.ts";
import { type ControllerLink, LinkError } from "./controller-link.ts";

const outboxMax = 10_000;
const batchMax = 500;
const gatherMs = 100;

export class Outbox {
  readonly #link: ControllerLink;
  readonly #records: AuditRecord[] = [];
  readonly #lost: (count: number) => AuditRecord;
  #lostCount = 0;
  #bell: () => void = () => undefined;

  constructor(link: ControllerLink, lost: (count: number) => AuditRecord) {
    this.#link = link;
    this.#lost = lost;
  }

  add(record: AuditRecord): void {
    if (this.#records.length >= outboxMax) this.#lostCount += 1;
    else this.#records.push(record);
    this.#bell();
  }

  async run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(200, 10_000);
    while (!signal.aborted) {
      if (this.#records.length === 0) {
        await new Promise<void>((resolve) => {
          this.#bell = resolve;
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
        await sleep(gatherMs, signal);
        continue;
      }
      if (this.#lostCount > 0 && this.#records.length < outboxMax) {
        this.#records.push(this.#lost(this.#lostCount));
        this.#lostCount = 0;
      }
      const batch = this.#records.slice(0, batchMax);
      try {
        await this.#link.send(batch, signal);
        this.#records.splice(0, batch.length);
        backoff.reset();
      } catch (error) {
        // What the controller will never take must not stand in the way of what follows.
        if (error instanceof LinkError && error.status === 400) this.#records.splice(0, batch.length);
        else await backoff.wait(signal);
      }
    }
  }
}
