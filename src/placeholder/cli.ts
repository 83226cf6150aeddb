import type { Buffer } from "node:buffer";
import { withoutLineEnd } from "../policy/line-end.ts";
import { makePlaceholder } from "./placeholder.ts";
import { SecretValue } from "./secret-value.ts";

/**
 * `kloak placeholder`: the line to print for a value read from standard input. One line end after the value is not part
 * of it, so that `echo` and `pbpaste` both do what one means.
 * @throws PlaceholderError
 */
export function placeholderFor(input: Buffer, options: { readonly prefix?: string | undefined } = {}): string {
  const value = new SecretValue(withoutLineEnd(input));
  return makePlaceholder(value, { prefix: options.prefix, object: "standard input" });
}
