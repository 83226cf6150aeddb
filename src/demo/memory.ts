/* Looks through all memory of a process that can be read. Needs root. */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from "node:fs";

export interface Needle {
  readonly name: string;
  readonly bytes: Buffer;
}

export interface Scan {
  readonly mappings: number;
  readonly bytes: number;
  /** How often each needle was found, by its name. */
  readonly found: Readonly<Record<string, number>>;
}

const chunkBytes = 4 * 1024 * 1024;

/** A value as it may lie in memory: as it is, two bytes a character, in hex, in base64 at each of its three alignments. */
export function disguises(value: string): Needle[] {
  const raw = Buffer.from(value);
  const needle = (name: string, bytes: Buffer | string): Needle => ({ name, bytes: Buffer.from(bytes) });
  const base64 = [0, 1, 2].map((before) => {
    // Characters that share bits with what stands before or after it are left out.
    const whole = Math.floor((raw.length + before) / 3) * 4;
    const text = Buffer.concat([Buffer.alloc(before), raw])
      .toString("base64")
      .slice(before === 0 ? 0 : 4, whole);
    return needle(`base64 (${before} before)`, text);
  });
  const hex = raw.toString("hex");
  return [
    needle("raw", raw),
    needle("UTF-16", Buffer.from(value, "utf16le")),
    needle("hex", hex),
    needle("HEX", hex.toUpperCase()),
    ...base64,
  ];
}

/** Reads every readable mapping of a process. Parts that cannot be read (device memory) are passed over. */
export function scanMemory(pid: number, needles: readonly Needle[]): Scan {
  const found: Record<string, number> = Object.fromEntries(needles.map(({ name }) => [name, 0]));
  const overlap = Math.max(...needles.map(({ bytes }) => bytes.length)) - 1;
  const memory = openSync(`/proc/${pid}/mem`, "r");
  const chunk = Buffer.allocUnsafe(chunkBytes);
  let mappings = 0;
  let total = 0;
  try {
    for (const { start, end } of readableMappings(pid)) {
      mappings += 1;
      for (let at = start; at < end; ) {
        const length = readAt(memory, chunk, at, Math.min(chunkBytes, end - at));
        if (length === 0) break;
        total += length;
        const view = chunk.subarray(0, length);
        for (const { name, bytes } of needles) found[name] = (found[name] ?? 0) + countIn(view, bytes);
        // What lies across the border is found in the next chunk. A short one near it may count twice, none is missed.
        at += at + length < end && length > overlap ? length - overlap : length;
      }
    }
  } finally {
    closeSync(memory);
  }
  return { mappings, bytes: total, found };
}

function readableMappings(pid: number): { start: number; end: number }[] {
  const lines = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n");
  return lines.flatMap((line) => {
    const [, start, end, name] = /^([0-9a-f]+)-([0-9a-f]+) r\S+ \S+ \S+ \S+\s*(.*)$/.exec(line) ?? [];
    if (!start || !end || name === "[vsyscall]" || name === "[vvar]" || name?.startsWith("[vvar_")) return [];
    return [{ start: Number.parseInt(start, 16), end: Number.parseInt(end, 16) }];
  });
}

function readAt(fd: number, buffer: Buffer, at: number, length: number): number {
  try {
    return readSync(fd, buffer, 0, length, at);
  } catch {
    return 0;
  }
}

function countIn(haystack: Buffer, needle: Buffer): number {
  let count = 0;
  for (let at = haystack.indexOf(needle); at !== -1; at = haystack.indexOf(needle, at + 1)) count += 1;
  return count;
}

/** Processes with `text` in their environment, whatever namespaces they are in. */
export function processesWith(text: string): { pid: number; name: string; environment: string[] }[] {
  return readdirSync("/proc").flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      const environment = readFileSync(`/proc/${entry}/environ`, "utf8").split("\0");
      if (!environment.includes(text)) return [];
      const name = (readlinkSync(`/proc/${entry}/exe`).split("/").at(-1) ?? "").replace(/ \(deleted\)$/, "");
      return [{ pid: Number(entry), name, environment }];
    } catch {
      return []; // it has ended
    }
  });
}
