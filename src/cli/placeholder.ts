import { isatty } from "node:tty";
import { placeholderFor } from "../placeholder/index.ts";
import { write } from "./report.ts";

/** Far more than any value may have. */
const mostBytes = 1024 * 1024;

/** `kloak placeholder`: a value on standard input, its placeholder on standard output. */
export async function placeholderCommand(options: { readonly prefix?: string }): Promise<number> {
  if (isatty(0)) write(2, "kloak: reading the value from the terminal; end it with Ctrl-D\n");
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer);
    length += (chunk as Buffer).length;
    if (length > mostBytes) break;
  }
  write(1, `${placeholderFor(Buffer.concat(chunks), { prefix: options.prefix })}\n`);
  return 0;
}
