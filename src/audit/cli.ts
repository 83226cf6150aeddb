import { type FilterInput, parseFilter } from "./filter.ts";
import { readRecords } from "./reader.ts";
import { recordText } from "./text.ts";

export interface AuditCommand extends FilterInput {
  readonly file: string;
  readonly follow?: boolean | undefined;
  readonly json?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** `kloak audit`: the lines to print. @throws KloakError for a bad filter or an unreadable file */
export async function* auditLines(command: AuditCommand): AsyncGenerator<string> {
  const wanted = parseFilter(command);
  for await (const record of readRecords(command.file, command)) {
    if (wanted(record)) yield command.json === true ? JSON.stringify(record) : recordText(record);
  }
}
