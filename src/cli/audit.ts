import { isatty } from "node:tty";
import { auditLines } from "../audit/index.ts";
import type { FilterInput } from "../audit/filter.ts";
import { KloakError } from "../errors.ts";
import { clusterAuditLines, type ClusterOptions, namesCluster } from "./cluster.ts";
import { write } from "./report.ts";

export interface AuditOptions extends FilterInput, ClusterOptions {
  readonly file?: string;
  readonly follow?: boolean;
  readonly json?: boolean;
}

/** `kloak audit`: the records of a file, of standard input or of a cluster. Ends with SIGINT when it follows. */
export async function auditCommand(options: AuditOptions): Promise<number> {
  const { file = "-" } = options;
  const isCluster = namesCluster(options);
  if (isCluster && options.file !== undefined)
    throw new KloakError("two-trails", `--file ${file} and a cluster are both named; give one of them`);
  if (!isCluster && file === "-" && isatty(0))
    throw new KloakError(
      "no-trail",
      "no trail is named; give --file FILE, the one that `kloak run --audit FILE` writes, or --cluster for the one of your kubeconfig",
    );
  const stop = new AbortController();
  const end = () => stop.abort();
  process.once("SIGINT", end);
  process.once("SIGTERM", end);
  try {
    const { signal } = stop;
    const lines = isCluster ? clusterAuditLines({ ...options, signal }) : auditLines({ ...options, file, signal });
    for await (const line of lines) write(1, `${line}\n`);
    return 0;
  } catch (error) {
    if (stop.signal.aborted) return 0;
    throw error;
  } finally {
    process.off("SIGINT", end);
    process.off("SIGTERM", end);
  }
}
