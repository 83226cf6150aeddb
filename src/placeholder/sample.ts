import type { Alphabet } from "./alphabet.ts";

/** `random(n)` gives n bytes of a cryptographic generator. */
export type RandomBytes = (count: number) => Uint8Array;

/** Long texts are drawn in pieces, so that the counts stay small numbers. */
const pieceCharacters = 32;

/** Whether some text of exactly `characters` characters takes exactly `bits` bits. */
export function isReachable(alphabet: Alphabet, characters: number, bits: number): boolean {
  if (characters < 0) return false;
  const lightest = alphabet.classes[0]?.bits ?? 0;
  const surplus = bits - lightest * characters;
  return surplus >= 0 && fewestCharacters(alphabet, surplus) <= characters;
}

/** How many texts of `characters` characters take `bits` bits; for long texts, how many first pieces there are. */
export function countTexts(alphabet: Alphabet, characters: number, bits: number): bigint {
  const [first] = pieces(alphabet, characters, bits);
  return first === undefined ? 0n : count(alphabet, first.characters, first.bits);
}

/**
 * Draws a text of `characters` characters that takes `bits` bits. Every such text of up to 32 characters is equally
 * likely; a longer one is made of pieces of which each has its share of the bits.
 */
export function sampleText(alphabet: Alphabet, characters: number, bits: number, random: RandomBytes): string {
  return pieces(alphabet, characters, bits)
    .map((piece) => {
      const texts = count(alphabet, piece.characters, piece.bits);
      return textOfRank(alphabet, piece.characters, piece.bits, uniformBelow(texts, random));
    })
    .join("");
}

interface Piece {
  readonly characters: number;
  readonly bits: number;
}

function pieces(alphabet: Alphabet, characters: number, bits: number): Piece[] {
  const result: Piece[] = [];
  let left = { characters, bits };
  while (left.characters > pieceCharacters) {
    const share = fairShare(alphabet, left);
    result.push({ characters: pieceCharacters, bits: share });
    left = { characters: left.characters - pieceCharacters, bits: left.bits - share };
  }
  result.push(left);
  return result;
}

/** Bits for the next piece: as near to its share as leaves both it and the rest possible. */
function fairShare(alphabet: Alphabet, left: Piece): number {
  const fair = Math.round((left.bits * pieceCharacters) / left.characters);
  for (let away = 0; away <= left.bits; away++) {
    for (const bits of [fair - away, fair + away]) {
      const possible =
        isReachable(alphabet, pieceCharacters, bits) &&
        isReachable(alphabet, left.characters - pieceCharacters, left.bits - bits);
      if (possible) return bits;
    }
  }
  throw new RangeError(`no text of ${left.characters} characters takes ${left.bits} bits`);
}

/** fewest.get(alphabet)[surplus]: the fewest characters, each above the lightest, whose bits above it sum to surplus. */
const fewest = new Map<Alphabet, number[]>();

function fewestCharacters(alphabet: Alphabet, surplus: number): number {
  let table = fewest.get(alphabet);
  if (table === undefined) fewest.set(alphabet, (table = [0]));
  const lightest = alphabet.classes[0]?.bits ?? 0;
  for (let sum = table.length; sum <= surplus; sum++) {
    let best = Number.POSITIVE_INFINITY;
    for (const { bits } of alphabet.classes) {
      if (bits > lightest) best = Math.min(best, 1 + (table[sum - (bits - lightest)] ?? Number.POSITIVE_INFINITY));
    }
    table.push(best);
  }
  return table[surplus] ?? Number.POSITIVE_INFINITY;
}

/** counts.get(alphabet)[characters].get(bits): how many texts. */
const counts = new Map<Alphabet, Map<number, bigint>[]>();

function count(alphabet: Alphabet, characters: number, bits: number): bigint {
  let table = counts.get(alphabet);
  if (table === undefined) counts.set(alphabet, (table = [new Map([[0, 1n]])]));
  for (let length = table.length; length <= characters; length++) {
    const row = new Map<number, bigint>();
    for (const [shorter, texts] of table[length - 1] ?? []) {
      for (const { bits: added, characters: members } of alphabet.classes) {
        const sum = shorter + added;
        row.set(sum, (row.get(sum) ?? 0n) + texts * BigInt(members.length));
      }
    }
    table.push(row);
  }
  return table[characters]?.get(bits) ?? 0n;
}

/** The text of a rank below `count(...)`: every rank gives another text. */
function textOfRank(alphabet: Alphabet, characters: number, bits: number, rank: bigint): string {
  let text = "";
  let left = { characters, bits, rank };
  while (left.characters > 0) {
    const next = characterOfRank(alphabet, left);
    text += next.character;
    left = next.left;
  }
  return text;
}

function characterOfRank(alphabet: Alphabet, from: { characters: number; bits: number; rank: bigint }) {
  let rank = from.rank;
  for (const { bits, characters: members } of alphabet.classes) {
    const rests = count(alphabet, from.characters - 1, from.bits - bits);
    const texts = rests * BigInt(members.length);
    if (rank < texts) {
      const character = members[Number(rank / rests)] as string;
      return { character, left: { characters: from.characters - 1, bits: from.bits - bits, rank: rank % rests } };
    }
    rank -= texts;
  }
  throw new RangeError("rank is not below the number of texts");
}

/** A number from 0 to limit - 1, all equally likely: what would make the lower ones likelier is drawn again. */
function uniformBelow(limit: bigint, random: RandomBytes): bigint {
  const bits = (limit - 1n).toString(2).length;
  const bytes = Math.ceil(bits / 8);
  for (;;) {
    let number = 0n;
    for (const byte of random(bytes)) number = (number << 8n) | BigInt(byte);
    number >>= BigInt(bytes * 8 - bits);
    if (number < limit) return number;
  }
}
