/* Functions of assembly, which no compiler changes, by the bytes that they begin with. */
import { segmentFlag, segmentType } from "./elf/image.ts";
import type { ElfImage, Segment } from "./elf/image.ts";
import { chunks } from "./elf/source.ts";

export interface Signature {
  readonly bytes: Buffer;
  /** Of `bytes`: those that are the same in every program. The others are distances to constants. */
  readonly fixed: readonly boolean[];
  /** The longest part that is fixed: where it is, and what. */
  readonly anchorAt: number;
  readonly anchor: Buffer;
}

/** Hexadecimal, with spaces where one likes; `..` is a byte that varies. */
export function signature(text: string): Signature {
  const parts = text.replaceAll(" ", "").match(/../g) ?? [];
  const fixed = parts.map((part) => part !== "..");
  const bytes = Buffer.from(parts.map((part) => (part === ".." ? 0 : Number.parseInt(part, 16))));
  let [anchorAt, length] = [0, 0];
  for (let start = 0; start < fixed.length; start++) {
    let end = start;
    while (fixed[end] === true) end += 1;
    if (end - start > length) [anchorAt, length] = [start, end - start];
  }
  return { bytes, fixed, anchorAt, anchor: bytes.subarray(anchorAt, anchorAt + length) };
}

export interface Match {
  readonly address: number;
  readonly fileOffset: number;
}

/** Assemblers' sources align functions so. */
const alignment = 16;
const searchMax = 512 << 20;

/** For each signature where a function in the file's code begins so: at most `limit`. The code is read once. */
export function matches(image: ElfImage, wanted: readonly Signature[], limit: number): Match[][] {
  const found: Match[][] = wanted.map(() => []);
  const overlap = Math.max(...wanted.map(({ anchor }) => anchor.length)) - 1;
  for (const segment of image.segments) {
    const { type, flags, offset, fileSize } = segment;
    if (type !== segmentType.load || (flags & segmentFlag.execute) === 0 || fileSize > searchMax) continue;
    for (const piece of chunks(image.source, offset, fileSize, overlap)) {
      for (const [index, each] of wanted.entries()) matchesIn(image, segment, piece, each, found[index] ?? [], limit);
    }
  }
  return found;
}

function matchesIn(
  image: ElfImage,
  segment: Segment,
  piece: { readonly offset: number; readonly bytes: Buffer },
  { bytes, fixed, anchor, anchorAt }: Signature,
  found: Match[],
  limit: number,
): void {
  for (let hit = piece.bytes.indexOf(anchor); hit >= 0 && found.length < limit; ) {
    const into = piece.offset + hit - anchorAt;
    hit = piece.bytes.indexOf(anchor, hit + 1);
    const address = segment.address + into;
    if (into < 0 || into + bytes.length > segment.fileSize || address % alignment !== 0) continue;
    if (found.some((other) => other.address === address)) continue;
    const code = image.source.read(segment.offset + into, bytes.length);
    if (fixed.every((same, at) => !same || code[at] === bytes[at])) {
      found.push({ address, fileOffset: segment.offset + into });
    }
  }
}
