import { auditLines } from "../audit/index.ts";
import type { FilterInput } from "../audit/filter.ts";
import { isatty } from "node:tty";
import { KloakError } from "../errors.ts";
import { write } from "./report.ts";

export interface AuditOptions extends FilterInput {
  readonly file?: string;
  readonly follow?: boolean;
  readonly json?: boolean;
}

/** `kloak audit`: the records of a file, or of standard input. Ends with SIGINT when it follows. */
export async function auditCommand({ file = "-", ...options }: AuditOptions): Promise<number> {
  if (file === "-" && isatty(0))
    throw new KloakError(
      "no-trail",
      "no trail is named; give --file FILE, the one that `kloak run --audit FILE` writes",
    );
  const stop = new AbortController();
  const end = () => stop.abort();
  process.once("SIGINT", end);
  process.once("SIGTERM", end);
  try {
    for await (const line of auditLines({ ...options, file, signal: stop.signal })) write(1, `${line}\n`);
    return 0;
  } finally {
    process.off("SIGINT", end);
    process.off("SIGTERM", end);
  }
}
