import { type AuditRecord, AuditWriter } from "../audit/index.ts";
import { noticeOf } from "../audit/notice.ts";
import type { Report } from "./report.ts";

const toldMax = 1000;

/** The audit records of a run: into the file that was asked for; what was not substituted is also said, once each. */
export class Trail {
  readonly #writer: AuditWriter | undefined;
  readonly #toStandardError: boolean;
  readonly #report: Report;
  readonly #told = new Set<string>();

  /** @throws KloakError if the file cannot be opened */
  constructor(file: string | undefined, report: Report) {
    this.#report = report;
    this.#toStandardError = file === "-";
    this.#writer = file === undefined ? undefined : new AuditWriter(file, { onError: (error) => report.error(error) });
  }

  /** Whether it keeps what went as intended too, which is never told. */
  get keepsAll(): boolean {
    return this.#writer !== undefined;
  }

  add(record: AuditRecord): void {
    this.#writer?.write(record);
    const text = noticeOf(record);
    if (text === undefined || this.#toStandardError || this.#told.has(text) || this.#told.size >= toldMax) return;
    this.#told.add(text);
    this.#report.warn(text);
  }

  async close(): Promise<void> {
    await this.#writer?.close();
  }
}
