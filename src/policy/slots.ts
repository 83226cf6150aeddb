import { entriesOf } from "./list.ts";
import { PolicyError, quoted } from "./policy-error.ts";
import { suggest } from "./suggest.ts";

/** Where in a request a placeholder may be replaced. */
export interface Slots {
  /** Any header but those that leak (host, cookie, referer, user-agent, origin, x-forwarded-*, content-*). */
  readonly header: boolean;
  /** Headers by name, lower case. */
  readonly headers: readonly string[];
  readonly query: boolean;
  readonly path: boolean;
  /** The body of a request. */
  readonly body: boolean;
}

/** As in `getkloak.io/in`: comma-separated, or a list. */
export type SlotsInput = string | readonly string[];

/** Room in `struct secret` and `struct header_name`. */
export const mostHeaders = 4;
export const longestHeaderName = 39;

const supported = "header, header:NAME, query, path and body";
const token = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/; // RFC 9110 5.6.2, lower case

/** Parses `getkloak.io/in`. Nothing given means `header`. */
export function parseSlots(input: SlotsInput): Slots {
  const entries = entriesOf("in", input);
  const slots = { header: false, headers: new Set<string>(), query: false, path: false, body: false };
  for (const entry of entries.length === 0 ? ["header"] : entries) addSlot(slots, entry);
  if (slots.headers.size > mostHeaders) {
    const problem = `in names ${slots.headers.size} headers, ${mostHeaders} is the most`;
    throw new PolicyError("slot-invalid", problem, 'name fewer, or use "header" for all');
  }
  return { ...slots, headers: [...slots.headers] };
}

/** Whether a placeholder may stand where clients percent-encode: in a URL, or in a form, which is a body. */
export function isPercentEncoded(slots: Slots): boolean {
  return slots.query || slots.path || slots.body;
}

/** How slots are written. */
export function slotsText(slots: Slots): string {
  return [
    ...(slots.header ? ["header"] : []),
    ...slots.headers.map((name) => `header:${name}`),
    ...(slots.query ? ["query"] : []),
    ...(slots.path ? ["path"] : []),
    ...(slots.body ? ["body"] : []),
  ].join(",");
}

interface SlotsSoFar {
  header: boolean;
  readonly headers: Set<string>;
  query: boolean;
  path: boolean;
  body: boolean;
}

function addSlot(slots: SlotsSoFar, entry: string): void {
  const [kind = "", ...names] = entry.split(":");
  const name = names.join(":");
  const hasName = names.length > 0;
  switch (kind.trim().toLowerCase()) {
    case "header":
      if (hasName) slots.headers.add(headerName(entry, name.trim().toLowerCase()));
      else slots.header = true;
      return;
    case "query":
      if (hasName)
        throw unsupported(entry, 'a single query parameter cannot be chosen yet; "query" allows all of them');
      slots.query = true;
      return;
    case "path":
      if (hasName) throw invalid(entry, '"path" takes no name: write "path"');
      slots.path = true;
      return;
    case "body":
      if (hasName) throw unsupported(entry, 'a single field of a body cannot be chosen yet; "body" allows all of it');
      slots.body = true;
      return;
    case "any":
      throw unsupported(entry, `it is not supported yet; supported are ${supported}`);
    default: {
      const meant = suggest(kind, ["header", "query", "path", "body"]);
      throw invalid(entry, meant === undefined ? `use ${supported}` : `did you mean ${quoted(meant)}?`);
    }
  }
}

function headerName(entry: string, name: string): string {
  if (!token.test(name)) {
    throw invalid(entry, 'name a header after the colon, as in "header:authorization"');
  }
  if (name.length > longestHeaderName) {
    throw invalid(entry, `the longest header name that can be chosen has ${longestHeaderName} characters`);
  }
  return name;
}

function invalid(entry: string, remedy: string): PolicyError {
  return new PolicyError("slot-invalid", `${quoted(entry)} is no place in a request (in)`, remedy);
}

function unsupported(entry: string, remedy: string): PolicyError {
  return new PolicyError("slot-unsupported", `a secret cannot be put into ${quoted(entry)} (in)`, remedy);
}
