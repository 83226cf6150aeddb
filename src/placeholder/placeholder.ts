import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { KloakError } from "../errors.ts";
import { type Alphabet, alphabets, prefixPattern } from "./alphabet.ts";
import { huffmanBits } from "./huffman.ts";
import { countTexts, isReachable, type RandomBytes, sampleText } from "./sample.ts";
import type { SecretValue } from "./secret-value.ts";
import { marker, tokenText } from "./token.ts";

/** Bytes of a value that can have a placeholder. */
export const shortestValue = 8;
export const longestValue = 4096;

/** The marker and two characters: with less than that the kernel has no token to look up. */
const shortestFromMarker = 8;
/** Below this many possible texts small letters join the alphabet. */
const wantedTexts = 2n ** 40n;
const drawsPerAlphabet = 4096;

/** Tokens that are in use: a set, or what knows them otherwise. */
export type Taken = Pick<ReadonlySet<string>, "has">;

export interface PlaceholderOptions {
  /** Leading characters that the placeholder keeps, for clients that check a key's shape. */
  readonly prefix?: string | undefined;
  /** Tokens (`tokenText`) that other placeholders have. */
  readonly taken?: Taken | undefined;
  /** It may stand in a URL or a form: then the value must be able to. */
  readonly inUrl?: boolean | undefined;
  /** What the value is, for the error's reader: `Secret payments/stripe, key token`. */
  readonly object?: string | undefined;
  readonly random?: RandomBytes | undefined;
}

/** Codes: value-empty, value-too-short, value-too-long, value-characters, value-is-placeholder, value-not-for-url, prefix-unsafe, prefix-too-long, no-equal-shape, placeholders-taken. */
export class PlaceholderError extends KloakError {
  constructor(code: string, message: string) {
    super(code, message);
    this.name = "PlaceholderError";
  }
}

/**
 * Makes a placeholder `<prefix>kloak:<random>` with the byte length and the HPACK Huffman bit length of the value: then
 * every encoding of a request that carries it is as long with the one as with the other.
 * @throws PlaceholderError if the value cannot have one.
 */
export function makePlaceholder(value: SecretValue, options: PlaceholderOptions = {}): string {
  const problem = placeholderProblem(value, options.prefix, options.inUrl);
  if (problem !== undefined) throw error(problem, options);
  const lead = (options.prefix ?? "") + marker;
  const shape = randomShape(value, lead);
  for (const alphabet of usableAlphabets(shape)) {
    for (let draw = 0; draw < drawsPerAlphabet; draw++) {
      const placeholder = lead + sampleText(alphabet, shape.characters, shape.bits, options.random ?? randomBytes);
      if (!isTaken(placeholder, options.taken)) return placeholder;
    }
  }
  throw error(allTaken(value), options);
}

export interface PlaceholderProblem {
  readonly code: string;
  /** What is wrong with the value or prefix, without the value. */
  readonly problem: string;
  readonly remedy: string;
}

/** Why a value cannot have a placeholder, or undefined if it can. */
export function placeholderProblem(value: SecretValue, prefix = "", inUrl = false): PlaceholderProblem | undefined {
  return (
    lengthProblem(value) ??
    characterProblem(value) ??
    (inUrl ? urlProblem(value) : undefined) ??
    prefixProblem(value, prefix) ??
    shapeProblem(value, prefix)
  );
}

/** Unreserved characters (RFC 3986 2.3) and those that mean the same in a path or a query as encoded. JSON escapes none. */
const urlCharacters = /^[A-Za-z0-9\-._~!$'()*,:@=]*$/;

/** A client would write any other character as three, and the text would not be as long as its placeholder. */
function urlProblem(value: SecretValue): PlaceholderProblem | undefined {
  if (urlCharacters.test(value.reveal().toString("latin1"))) return undefined;
  return {
    code: "value-not-for-url",
    problem: "the value has characters that a URL or a body does not hold as they are",
    remedy: "take query, path and body out of its slots (in), or manage a value of letters, digits and - . _ ~ only",
  };
}

function lengthProblem(value: SecretValue): PlaceholderProblem | undefined {
  const { length } = value;
  if (length === 0) return { code: "value-empty", problem: "the value is empty", remedy: "give it a value" };
  if (length < shortestValue) {
    const problem = `the value has ${bytes(length)}; a placeholder needs at least ${shortestValue}`;
    return { code: "value-too-short", problem, remedy: "use a longer value" };
  }
  if (length > longestValue) {
    const problem = `the value has ${bytes(length)}; the longest that can be replaced has ${longestValue}`;
    return {
      code: "value-too-long",
      problem,
      remedy: "manage only the key that is sent in requests, not a whole file",
    };
  }
  return undefined;
}

function characterProblem(value: SecretValue): PlaceholderProblem | undefined {
  const revealed = value.reveal();
  const at = revealed.findIndex((byte) => byte < 0x20 || byte > 0x7e);
  if (at !== -1) {
    const kind = kindOfByte(revealed[at] as number);
    const last = at === revealed.length - 1;
    return {
      code: "value-characters",
      problem: last ? `the value ends in ${kind}` : `byte ${at + 1} of the value is ${kind}`,
      remedy: last
        ? "remove it (printf '%s' instead of echo)"
        : "only printable ASCII can stand in a header; manage the text that is sent, for instance its base64 form",
    };
  }
  if (revealed.includes(marker)) {
    const problem = `the value contains "${marker}", so it is a placeholder itself`;
    return { code: "value-is-placeholder", problem, remedy: "give the real value" };
  }
  return undefined;
}

function prefixProblem(value: SecretValue, prefix: string): PlaceholderProblem | undefined {
  if (!prefixPattern.test(prefix)) {
    const problem = `prefix ${JSON.stringify(prefix)} has characters that do not survive everywhere`;
    return { code: "prefix-unsafe", problem, remedy: "use letters, digits and - . _ ~ + / = : only" };
  }
  if (prefix.includes(marker)) {
    const problem = `prefix ${JSON.stringify(prefix)} contains "${marker}"`;
    return { code: "prefix-unsafe", problem, remedy: "leave it out: every placeholder has it after the prefix" };
  }
  const room = value.length - shortestFromMarker;
  if (prefix.length > room) {
    const needed = `"${marker}" and two characters must fit behind it`;
    const problem = `prefix ${JSON.stringify(prefix)} is too long for a value of ${bytes(value.length)}: ${needed}`;
    const remedy = room > 0 ? `use a prefix of at most ${room} characters` : "leave the prefix out";
    return { code: "prefix-too-long", problem, remedy };
  }
  return undefined;
}

function shapeProblem(value: SecretValue, prefix: string): PlaceholderProblem | undefined {
  const shape = randomShape(value, prefix + marker);
  if (usableAlphabets(shape).length > 0) return undefined;
  const light = shape.bits < 6.5 * shape.characters;
  const cause = light
    ? "it has too many of the characters 0 1 2 a c e i o s t, which that code makes short"
    : "it has too many symbols, which that code makes long";
  const shorterPrefix = prefix === "" ? "" : " or leave the prefix out";
  return {
    code: "no-equal-shape",
    problem: `no placeholder has the same length in HTTP/2's header code (HPACK Huffman) as the value: ${cause}`,
    remedy: `use a longer, random value (for instance from openssl rand -base64 24)${shorterPrefix}`,
  };
}

function allTaken(value: SecretValue): PlaceholderProblem {
  const problem = `all placeholders of its shape (${bytes(value.length)}) are taken by other secrets`;
  return { code: "placeholders-taken", problem, remedy: "use a longer value, or a shorter prefix" };
}

interface RandomShape {
  readonly characters: number;
  readonly bits: number;
}

function randomShape(value: SecretValue, lead: string): RandomShape {
  return {
    characters: value.length - lead.length,
    bits: huffmanBits(value.reveal()) - huffmanBits(Buffer.from(lead, "latin1")),
  };
}

/** The alphabets to draw from, best first: the plainest that gives the shape, unless it leaves too little to chance. */
function usableAlphabets({ characters, bits }: RandomShape): readonly Alphabet[] {
  const reaching = alphabets.filter((alphabet) => isReachable(alphabet, characters, bits));
  const [plainest] = reaching;
  const guessable = plainest === alphabets[0] && countTexts(alphabets[0] as Alphabet, characters, bits) < wantedTexts;
  return guessable ? reaching.slice(1) : reaching;
}

/** A long placeholder may not start like a short one either, or the short one would be found inside it. */
function isTaken(placeholder: string, taken: Taken | undefined): boolean {
  if (taken === undefined) return false;
  const token = tokenText(placeholder);
  return taken.has(token) || taken.has(token.slice(0, shortestFromMarker));
}

function error({ code, problem, remedy }: PlaceholderProblem, { object }: PlaceholderOptions): PlaceholderError {
  return new PlaceholderError(code, `${object === undefined ? "" : `${object}: `}${problem}; ${remedy}`);
}

function bytes(count: number): string {
  return count === 1 ? "1 byte" : `${count} bytes`;
}

function kindOfByte(byte: number): string {
  if (byte === 0x0a) return "a line feed";
  if (byte === 0x0d) return "a carriage return";
  if (byte === 0x09) return "a tab";
  if (byte === 0x00) return "a NUL byte";
  return byte > 0x7e && byte !== 0x7f ? "not an ASCII character" : "a control character";
}
