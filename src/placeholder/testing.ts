import fc from "fast-check";

/** Text of printable ASCII characters. */
export function printable(lengths: { minLength: number; maxLength: number }): fc.Arbitrary<string> {
  return fc.string({ unit: "grapheme-ascii", ...lengths });
}
