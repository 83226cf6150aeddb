export { placeholderFor } from "./cli.ts";
export { type EncodedChunk, encodings } from "./encodings.ts";
export { huffmanBits } from "./huffman.ts";
export {
  longestValue,
  makePlaceholder,
  PlaceholderError,
  type PlaceholderOptions,
  type PlaceholderProblem,
  placeholderProblem,
  shortestValue,
  type Taken,
} from "./placeholder.ts";
export { redact, redactPlaceholders } from "./redact.ts";
export { SecretValue } from "./secret-value.ts";
export { marker, markerOffset, tokenOf, tokenText } from "./token.ts";
