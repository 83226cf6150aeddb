export { type AuditCommand, auditLines } from "./cli.ts";
export { type Filter, type FilterInput, parseFilter } from "./filter.ts";
export { type Reason, reasons } from "./names.ts";
export { readRecords } from "./reader.ts";
export {
  type AuditRecord,
  type Destination,
  lostRecord,
  type RecordContext,
  recordOf,
  unprotectedRecord,
  type Workload,
  wallTime,
} from "./record.ts";
export { recordText } from "./text.ts";
export { AuditWriter, type WriterOptions } from "./writer.ts";
