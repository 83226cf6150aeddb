import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseAllDocuments,
} from "yaml";
import type { Finding } from "./finding.ts";

/** One document of a YAML file, with the lines of its parts. */
export interface YamlDocument {
  /** Plain data; undefined if the document could not be read. */
  readonly data: unknown;
  readonly problems: readonly Finding[];
  /** Line of the key or item at a path, or of the nearest part around it that exists. */
  lineOf(path: readonly (string | number)[]): number;
}

export function parseYaml(text: string, file: string): readonly YamlDocument[] {
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false });
  return (Array.isArray(documents) ? documents : []).map((document) => read(document, lines, file));
}

function read(document: Document.Parsed, lines: LineCounter, file: string): YamlDocument {
  const lineAt = (offset: number) => Math.max(1, lines.linePos(offset).line);
  // What follows the first error is mostly its consequence.
  const problems: Finding[] = document.errors.slice(0, 1).map(({ message, pos }) => ({
    severity: "error",
    file,
    line: lineAt(pos[0]),
    object: "",
    problem: `not valid YAML: ${firstLine(message)}`,
    remedy: "correct the syntax",
  }));
  return {
    ...(problems.length > 0 ? { data: undefined, problems } : plainData(document, file)),
    lineOf: (path) => lineAt(offsetOf(document, path)),
  };
}

/** Aliases that multiply (a "billion laughs" file) are refused by the parser here. */
function plainData(document: Document.Parsed, file: string): { data: unknown; problems: readonly Finding[] } {
  try {
    return { data: document.toJS({ maxAliasCount: 100 }), problems: [] };
  } catch (cause) {
    const problem = `not readable: ${firstLine(cause instanceof Error ? cause.message : String(cause))}`;
    const remedy = "write the parts out instead of repeating them by aliases";
    return { data: undefined, problems: [{ severity: "error", file, line: 1, object: "", problem, remedy }] };
  }
}

function offsetOf(document: Document.Parsed, path: readonly (string | number)[]): number {
  let node = isNode(document.contents) ? followed(document.contents, document) : undefined;
  let offset = node?.range?.[0] ?? 0;
  for (const step of path) {
    const next = child(node, step);
    if (next === undefined) break;
    offset = next.offset ?? offset;
    node = isNode(next.node) ? followed(next.node, document) : undefined;
  }
  return offset;
}

function child(
  node: Node | undefined,
  step: string | number,
): { node: unknown; offset: number | undefined } | undefined {
  if (isMap(node)) {
    const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(step));
    return pair === undefined
      ? undefined
      : { node: pair.value, offset: isNode(pair.key) ? pair.key.range?.[0] : undefined };
  }
  if (isSeq(node)) {
    const item = node.items[Number(step)];
    return item === undefined ? undefined : { node: item, offset: isNode(item) ? item.range?.[0] : undefined };
  }
  return undefined;
}

function followed(node: Node, document: Document.Parsed): Node | undefined {
  return isAlias(node) ? node.resolve(document) : node;
}

function firstLine(text: string): string {
  return text.split("\n")[0] ?? "";
}
