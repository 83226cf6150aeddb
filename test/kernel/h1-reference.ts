/*
 * HTTP/1.1 requests as RFC 9112 has them and as the kernel's parser narrows them: whole header blocks and regular
 * expressions instead of a state for each byte. Both should say the same of every stream.
 */
import { Buffer } from "node:buffer";

/** A marker, by its offset in the stream. */
export interface Marker {
  readonly marker: number;
  readonly base64: number | undefined;
  readonly percent: boolean;
  readonly slot: "header" | "query" | "path" | "body";
  readonly forbidden: boolean;
  readonly header: string;
  readonly host: string | undefined;
}

export interface Verdict {
  /** `body`: within a body, or a chunk's data; `chunks`: between them; `block`: the last header block has no end. */
  readonly end: "idle" | "body" | "chunks" | "block" | "opaque" | "lost";
  /** End of the last complete header block. */
  readonly known: number;
  /** Of the requests whose header blocks are complete. */
  readonly markers: readonly Marker[];
  /** Of their bodies, as far as they are there. */
  readonly inBodies: readonly Marker[];
  /** Bytes that nobody has to read. */
  readonly bodies: readonly { readonly start: number; readonly end: number }[];
}

const token = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]";
const requestLine = new RegExp(`^(${token}{1,32}) ([^\\x00-\\x20\\x7f]+) HTTP/1\\.([01])$`);
const headerLine = new RegExp(`^(${token}+):[ \\t]*((?:[^ \\t\\x00-\\x1f\\x7f][\\t\\x20-\\x7e\\x80-\\xff]*)?)$`);
const forbidden = /^(?:host|cookie|origin|referer|upgrade|user-agent|proxy-authorization|content-.*|x-forwarded-.*)$/;
const longestName = 39;
const plain = { base64: undefined, percent: false } as const;

function* occurrences(text: string): Generator<number> {
  for (let at = text.indexOf("kloak:"); at >= 0; at = text.indexOf("kloak:", at + 1)) yield at;
}

interface Block {
  readonly markers: readonly Marker[];
  readonly host: string | undefined;
  readonly next: "idle" | "opaque" | "chunks" | number;
}

/** A header block without its last empty line; undefined: nobody should have to say what it means. */
function readBlock(text: string, start: number): Block | undefined {
  const lines = text.split("\r\n");
  const [, method = "", target = "", minor] = requestLine.exec(lines[0] ?? "") ?? [];
  const tunnel = method === "CONNECT";
  if (minor === undefined || !(tunnel || target.startsWith("/") || target.startsWith("*"))) return undefined;

  const markers: Omit<Marker, "host">[] = [];
  for (const at of occurrences(target)) {
    const slot = target.slice(0, at).includes("?") ? "query" : "path";
    markers.push({ ...plain, marker: start + method.length + 1 + at, slot, forbidden: false, header: "" });
  }
  for (const { index: at } of target.matchAll(/kloak%3[Aa]/g)) {
    const slot = target.slice(0, at).includes("?") ? "query" : "path";
    const place = { marker: start + method.length + 1 + at, base64: undefined, percent: true };
    markers.push({ ...place, slot, forbidden: false, header: "" });
  }
  const seen = new Map<string, string>();
  let offset = start + (lines[0] ?? "").length + 2;
  for (const line of lines.slice(1)) {
    const [, rawName = "", value] = headerLine.exec(line) ?? [];
    if (value === undefined) return undefined;
    const name = rawName.toLowerCase();
    if (["host", "content-length", "transfer-encoding"].includes(name)) {
      if (seen.has(name)) return undefined;
    }
    seen.set(name, value);
    const at = offset + line.length - value.length;
    const common = {
      slot: "header",
      forbidden: forbidden.test(name),
      header: name.length > longestName ? "" : name,
    } as const;
    for (const found of occurrences(value)) markers.push({ ...common, ...plain, marker: at + found });
    const [, scheme = "", base64 = ""] = /^(basic +)([A-Za-z0-9+/]*)/i.exec(value) ?? [];
    if (base64 && (name === "authorization" || name === "proxy-authorization")) {
      const decoded = Buffer.from(base64, "base64").toString("latin1");
      for (const found of occurrences(decoded))
        markers.push({ ...common, percent: false, marker: found, base64: at + scheme.length });
    }
    offset += line.length + 2;
  }

  const host = seen.get("host")?.replace(/[ \t]+$/, "");
  const length = seen.get("content-length")?.replace(/[ \t]+$/, "");
  const coding = seen.get("transfer-encoding")?.replace(/[ \t]+$/, "");
  if (host !== undefined && !/^[A-Za-z0-9\-._:[\]]{1,255}$/.test(host)) return undefined;
  if (length !== undefined && !/^[0-9]{1,18}$/.test(length)) return undefined;
  if (coding !== undefined && (!/^chunked$/i.test(coding) || length !== undefined || minor === "0")) return undefined;
  const next = tunnel || seen.has("upgrade") ? "opaque" : coding !== undefined ? "chunks" : Number(length ?? 0);
  return {
    markers: markers.map((marker) => ({ ...marker, host: host?.toLowerCase() })),
    host: host?.toLowerCase(),
    next: next === 0 ? "idle" : next,
  };
}

/** A stream of whole requests, of which the last may be cut inside its body. */
export function readStream(stream: Buffer): Verdict {
  const text = stream.toString("latin1");
  const markers: Marker[] = [];
  const bodies: { start: number; end: number }[] = [];
  const inBodies: Marker[] = [];
  const verdict = (end: Verdict["end"]): Verdict => ({ end, known, markers, inBodies, bodies });
  let at = 0;
  let known = 0;

  const skip = (length: number, host: string | undefined): boolean => {
    const body = text.slice(at, at + length);
    bodies.push({ start: at, end: at + body.length });
    const common = { base64: undefined, slot: "body", forbidden: false, header: "", host } as const;
    for (const found of occurrences(body)) inBodies.push({ ...common, marker: at + found, percent: false });
    for (const { index } of body.matchAll(/kloak%3[Aa]/g))
      inBodies.push({ ...common, marker: at + index, percent: true });
    at += length;
    return at <= text.length;
  };
  while (at < text.length) {
    if (text.startsWith("PRI ", at)) return verdict("opaque");
    const end = text.indexOf("\r\n\r\n", at);
    if (end < 0) return verdict("block");
    const block = readBlock(text.slice(at, end), at);
    if (!block) return verdict("lost");
    markers.push(...block.markers);
    at = end + 4;
    known = at;
    if (block.next === "opaque") return verdict("opaque");
    if (typeof block.next === "number" && !skip(block.next, block.host)) return verdict("body");
    while (block.next === "chunks") {
      const rest = text.slice(at);
      const line = /^([0-9A-Fa-f]{1,8})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n/.exec(rest);
      const part = /^(?:[0-9A-Fa-f]{1,8}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?)?$/;
      if (!line) return verdict(part.test(rest) ? "chunks" : "lost");
      const size = Number.parseInt(line[1] ?? "", 16);
      at += line[0].length;
      if (size > 0 && !skip(size, block.host)) return verdict("body");
      const after = text.slice(at, at + 2);
      if (after !== "\r\n") return verdict("\r\n".startsWith(after) ? "chunks" : "lost");
      at += 2;
      if (size === 0) break;
    }
  }
  return verdict("idle");
}
