import type { ServedRequest } from "../../src/lab/server.ts";

/** The value of a request's header as it arrived; the empty string without one. */
export function header(request: ServedRequest, name: string): string {
  return request.headers.find(([other]) => other.toLowerCase() === name)?.[1] ?? "";
}

/** How often each line stands in `lines`. */
export function count(lines: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of [...lines].sort()) counts[line] = (counts[line] ?? 0) + 1;
  return counts;
}

export function timesIn(text: string, part: string): number {
  return text.split(part).length - 1;
}
