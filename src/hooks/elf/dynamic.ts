import { locate, segmentType, textAt, word } from "./image.ts";
import type { ElfImage } from "./image.ts";

/** What the dynamic segment tells the loader. */
export interface Dynamic {
  readonly needed: readonly string[];
  readonly soname: string | undefined;
  readonly rpath: string | undefined;
  readonly runpath: string | undefined;
  /** Addresses in the program. */
  readonly symbols: number | undefined;
  readonly gnuHash: number | undefined;
  readonly hash: number | undefined;
  /** In the file. */
  readonly strings: { readonly offset: number; readonly size: number } | undefined;
}

const tag = {
  needed: 1,
  hash: 4,
  strings: 5,
  symbols: 6,
  stringsSize: 10,
  soname: 14,
  rpath: 15,
  runpath: 29,
} as const;
const tagGnuHash = 0x6ffffef5;
const neededMax = 1024;
const dynamicMax = 64 << 10;

/** Undefined for a static executable. */
export function readDynamic(image: ElfImage): Dynamic | undefined {
  const segment = image.segments.find(({ type }) => type === segmentType.dynamic);
  if (segment === undefined) return undefined;
  const bytes = image.source.read(segment.offset, Math.min(segment.fileSize, dynamicMax));
  const first = new Map<number, number>();
  const neededAt: number[] = [];
  for (let at = 0; at + 16 <= bytes.length; at += 16) {
    const type = word(bytes, at);
    const value = word(bytes, at + 8);
    if (type === 0) break;
    if (type === tag.needed && neededAt.length < neededMax) neededAt.push(value);
    else if (!first.has(type)) first.set(type, value);
  }
  const strings = stringTable(image, first.get(tag.strings), first.get(tag.stringsSize));
  const text = (at: number | undefined): string | undefined => {
    if (at === undefined || strings === undefined || at >= strings.size) return undefined;
    return textAt(image.source.read(strings.offset + at, Math.min(4096, strings.size - at)), 0) || undefined;
  };
  return {
    needed: neededAt.map(text).filter((name) => name !== undefined),
    soname: text(first.get(tag.soname)),
    rpath: text(first.get(tag.rpath)),
    runpath: text(first.get(tag.runpath)),
    symbols: first.get(tag.symbols),
    gnuHash: first.get(tagGnuHash),
    hash: first.get(tag.hash),
    strings,
  };
}

function stringTable(image: ElfImage, address: number | undefined, size: number | undefined): Dynamic["strings"] {
  if (address === undefined || size === undefined) return undefined;
  const place = locate(image, address);
  return place === undefined ? undefined : { offset: place.offset, size: Math.min(size, place.left) };
}

/** PT_INTERP: the loader that the kernel starts. */
export function readInterpreter(image: ElfImage): string | undefined {
  const segment = image.segments.find(({ type }) => type === segmentType.interpreter);
  if (segment === undefined || segment.fileSize > 4096) return undefined;
  return textAt(image.source.read(segment.offset, segment.fileSize), 0) || undefined;
}
