import type { AuditRecord } from "./record.ts";

/** What a user should hear of a record, in a sentence; undefined for what went as intended. */
export function noticeOf({ outcome, reason, secret, destination, detail, count }: AuditRecord): string | undefined {
  if (outcome === "unprotected") return detail;
  if (outcome === "lost") return `${count ?? 0} audit records are lost`;
  if (outcome !== "refused") return undefined;
  const { host, address, port } = destination;
  const where = host ?? address;
  const target = where === null ? "" : ` to ${where}${port === null ? "" : ` port ${port}`}`;
  return `${secret ?? "a secret"} went out${target} as its placeholder: ${reason ?? "unknown reason"}`;
}
