/** Bits of every byte's code in HPACK's Huffman code, RFC 7541 appendix B, without EOS. Sixteen a line. */
// biome-ignore format: the lines of the table carry its meaning
const codeBits: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/** Length in bits of the bytes as an HPACK Huffman string, without the padding of its last byte. */
export function huffmanBits(bytes: Uint8Array): number {
  let bits = 0;
  for (const byte of bytes) bits += codeBits[byte] as number;
  return bits;
}

/** Length in bits of one byte's code. */
export function huffmanCodeBits(byte: number): number {
  return codeBits[byte] as number;
}

/** One byte's code: its lowest `bits` bits, the first sent highest. */
export interface HuffmanCode {
  readonly code: number;
  readonly bits: number;
}

/** By byte. The code is canonical: shorter codes first, and in the order of the bytes among those of one length. */
export const huffmanCodes: readonly HuffmanCode[] = canonicalCodes();

function canonicalCodes(): readonly HuffmanCode[] {
  const codes: HuffmanCode[] = [];
  const order = [...codeBits.keys()].sort((a, b) => huffmanCodeBits(a) - huffmanCodeBits(b) || a - b);
  let next = 0;
  let length = 0;
  for (const byte of order) {
    const bits = huffmanCodeBits(byte);
    next *= 2 ** (bits - length);
    length = bits;
    codes[byte] = { code: next, bits };
    next += 1;
  }
  return codes;
}
