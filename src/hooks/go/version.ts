import type { ElfImage } from "../elf/image.ts";

const magic = Buffer.from("\xff Go buildinf:", "latin1");
/** The version stands in the header's own section, not behind a pointer: go1.18 and later (src/debug/buildinfo). */
const inline = 2;

/** As the toolchain calls itself, without "go": "1.26.8". */
export function goVersion(image: ElfImage): string | undefined {
  const section = image.sections.find(({ name, size }) => name === ".go.buildinfo" && size > 33);
  if (section === undefined) return undefined;
  const bytes = image.source.read(section.offset, Math.min(section.size, 256));
  if (!bytes.subarray(0, magic.length).equals(magic) || ((bytes[15] ?? 0) & inline) === 0) return undefined;
  const length = bytes[32] ?? 0; // a varint, of one byte for any version there is
  const version = bytes.toString("latin1", 33, 33 + length);
  return /^go[\x21-\x7e]{1,60}/.exec(version)?.[0].slice(2);
}
