import type { Machine } from "./elf/image.ts";

/** Library name → places, best first, for one machine. */
export type LibraryCache = ReadonlyMap<string, readonly string[]>;

const newMagic = "glibc-ld.so.cache1.1";
const oldMagic = "ld.so-1.7.0";
/** glibc sysdeps/generic/ldconfig.h: kind of library in the low byte, machine in the next. */
const machineFlag: Readonly<Record<Machine, number>> = { "x86-64": 0x0300, arm64: 0x0a00 };
const entriesMax = 200_000;

/**
 * Parses /etc/ld.so.cache (glibc elf/cache.c, dl-cache.h), the format of glibc 2.2 and later, alone or behind the old
 * one. What is not such a cache, or damaged, gives what could be read of it.
 */
export function parseLibraryCache(bytes: Buffer, machine: Machine): LibraryCache {
  const places = new Map<string, string[]>();
  const start = newFormat(bytes);
  if (start === undefined) return places;
  const cache = bytes.subarray(start);
  const count = Math.min(cache.readUInt32LE(20), entriesMax);
  for (let index = 0; index < count; index++) {
    const at = 48 + index * 24;
    if (at + 24 > cache.length) break;
    if ((cache.readUInt32LE(at) & 0xff00) !== machineFlag[machine]) continue;
    const name = text(cache, cache.readUInt32LE(at + 4));
    const path = text(cache, cache.readUInt32LE(at + 8));
    if (name === undefined || path === undefined) continue;
    const others = places.get(name);
    if (others === undefined) places.set(name, [path]);
    else others.push(path);
  }
  return places;
}

function newFormat(bytes: Buffer): number | undefined {
  let start = 0;
  if (bytes.length >= 16 && bytes.toString("latin1", 0, oldMagic.length) === oldMagic) {
    // Old header of 16 bytes, entries of 12, then aligned to 8.
    start = (16 + bytes.readUInt32LE(12) * 12 + 7) & ~7;
  }
  if (start < 0 || start + 48 > bytes.length) return undefined;
  return bytes.toString("latin1", start, start + newMagic.length) === newMagic ? start : undefined;
}

function text(bytes: Buffer, at: number): string | undefined {
  const end = at < bytes.length ? bytes.indexOf(0, at) : -1;
  return end < 0 || end - at > 4096 ? undefined : bytes.toString("latin1", at, end);
}
