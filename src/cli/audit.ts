import { auditLines } from "../audit/index.ts";
import type { FilterInput } from "../audit/filter.ts";
import { write } from "./report.ts";

export interface AuditOptions extends FilterInput {
  readonly file?: string;
  readonly follow?: boolean;
  readonly json?: boolean;
}

const standardInput = "/dev/stdin";

/** `kloak audit`: the records of a file, or of standard input. Ends with SIGINT when it follows. */
export async function auditCommand({ file = "-", ...options }: AuditOptions): Promise<number> {
  const stop = new AbortController();
  const end = () => stop.abort();
  process.once("SIGINT", end);
  process.once("SIGTERM", end);
  try {
    const source = file === "-" ? standardInput : file;
    for await (const line of auditLines({ ...options, file: source, signal: stop.signal })) write(1, `${line}\n`);
    return 0;
  } finally {
    process.off("SIGINT", end);
    process.off("SIGTERM", end);
  }
}
