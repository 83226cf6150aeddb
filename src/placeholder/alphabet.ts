import { huffmanCodeBits } from "./huffman.ts";

/** Characters of one Huffman code length. */
export interface LengthClass {
  readonly bits: number;
  readonly characters: string;
}

/** Characters that the random part of a placeholder may use, by Huffman code length. */
export interface Alphabet {
  readonly name: string;
  readonly classes: readonly LengthClass[];
}

const capitalsAndDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const smallLetters = "abcdefghijklmnopqrstuvwxyz";

/**
 * From the plainest to the oddest; each holds all characters of the one before. Letters and digits have codes of 5 to 8
 * bits. Only values with more symbols than letters need what follows: `~` (13 bits, unreserved in a URL), `+` (11 bits,
 * token68), and at the very end `!`, `#` and `^` (10, 12, 14 bits), which are still characters of an HTTP token
 * (RFC 9110 5.6.2) and stand outside every quoting rule of JSON and YAML in the middle of a word.
 */
export const alphabets: readonly Alphabet[] = [
  alphabet("capitals and digits", capitalsAndDigits),
  alphabet("letters and digits", capitalsAndDigits + smallLetters),
  alphabet("letters, digits and ~", `${capitalsAndDigits}${smallLetters}~`),
  alphabet("letters, digits, ~ and +", `${capitalsAndDigits}${smallLetters}~+`),
  alphabet("letters, digits and ~+!#^", `${capitalsAndDigits}${smallLetters}~+!#^`),
];

/** A prefix is copied as it is: the characters of a token68 (RFC 6750 2.1) and the colon. */
export const prefixPattern = /^[A-Za-z0-9\-._~+/=:]*$/;

function alphabet(name: string, characters: string): Alphabet {
  const byBits = new Map<number, string>();
  for (const character of characters) {
    const bits = huffmanCodeBits(character.charCodeAt(0));
    byBits.set(bits, (byBits.get(bits) ?? "") + character);
  }
  const classes = [...byBits].map(([bits, members]) => ({ bits, characters: members }));
  return { name, classes: classes.sort((a, b) => a.bits - b.bits) };
}
