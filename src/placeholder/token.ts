import { Buffer } from "node:buffer";

/** What the data plane looks for; `k_marker_bytes` in bpf/types/common.h. */
export const marker = "kloak:";

const tokenBytes = 16;
const shortTokenBytes = 8;

/** Where the marker starts in a placeholder, in bytes; -1 if the text is none. */
export function markerOffset(placeholder: string): number {
  return placeholder.indexOf(marker);
}

/**
 * The text by which the kernel looks a placeholder up: 16 bytes from the marker on, or the first 8 of a shorter one.
 * Unique among the placeholders of a node.
 */
export function tokenText(placeholder: string): string {
  const rest = placeholder.slice(markerOffset(placeholder));
  return rest.length >= tokenBytes ? rest.slice(0, tokenBytes) : rest.slice(0, shortTokenBytes);
}

/** The same as in `struct token_key`: 16 bytes, a short one zero-padded. */
export function tokenOf(placeholder: string): Buffer {
  const token = Buffer.alloc(tokenBytes);
  token.write(tokenText(placeholder), "latin1");
  return token;
}
