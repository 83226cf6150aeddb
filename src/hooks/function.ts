/* The code of a function in a file, and where in it to listen. */
import { locate, segmentFlag } from "./elf/image.ts";
import type { ElfImage } from "./elf/image.ts";
import type { ElfSymbol } from "./elf/symbols.ts";
import { choosePoint } from "./x86/prologue.ts";
import type { ProbePoint } from "./x86/prologue.ts";

const prologueMax = 64 << 10;

/** The function's first bytes, and whether that is all of it. A size of 0 is not known. */
export function codeOf(
  image: ElfImage,
  { address, size }: Pick<ElfSymbol, "address" | "size">,
): { readonly code: Buffer; readonly complete: boolean } {
  const place = locate(image, address, segmentFlag.execute);
  if (place === undefined) return { code: Buffer.alloc(0), complete: false };
  const wanted = size > 0 ? size : 128;
  const length = Math.min(wanted, place.left, prologueMax);
  return { code: image.source.read(place.offset, length), complete: size > 0 && length === size };
}

export function pointOf(
  image: ElfImage,
  symbol: Pick<ElfSymbol, "address" | "size">,
  argumentCount: number,
): ProbePoint {
  if (image.machine === "arm64") {
    return { offset: 0, instruction: "unknown", cost: "breakpoint", reason: "on arm64 the entry is as good as any" };
  }
  const { code, complete } = codeOf(image, symbol);
  return choosePoint(code, argumentCount, complete);
}
