/**
 * Prints bpf/http/huffman_table.h: HPACK's Huffman code (RFC 7541 appendix B) as an automaton that reads four bits at a time.
 *   sh scripts/node scripts/huffman-table.ts > bpf/http/huffman_table.h
 */
import { huffmanCodes } from "../src/placeholder/huffman.ts";

interface Node {
  readonly depth: number;
  readonly next: [Node | number, Node | number];
}

const endOfString = 256;
/** What is no character of a header value, so that it can stand for something else. */
const none = 0;
const control = 1;
const end = 2;

const missing = -1;
const root: Node = { depth: 0, next: [missing, missing] };

function enter(symbol: number, code: number, bits: number): void {
  let node = root;
  for (let at = bits - 1; at >= 0; at--) {
    const bit = (code >>> at) & 1;
    if (at === 0) {
      node.next[bit] = symbol;
      return;
    }
    const next = node.next[bit] as Node | number;
    if (typeof next === "number") node.next[bit] = { depth: node.depth + 1, next: [missing, missing] };
    node = node.next[bit] as Node;
  }
}

for (const [symbol, { code, bits }] of huffmanCodes.entries()) enter(symbol, code, bits);
enter(endOfString, 0x3fffffff, 30);

/** Level by level, so that a number tells the depth: the nodes of depth d that end a level are all ones. */
const nodes: Node[] = [root];
for (let at = 0; at < nodes.length; at++) {
  for (const next of (nodes[at] as Node).next) if (typeof next !== "number") nodes.push(next);
}
const numbers = new Map(nodes.map((node, number) => [node, number]));

function step(from: Node, nibble: number): number {
  let node = from;
  let symbol = none;
  for (let at = 3; at >= 0; at--) {
    const next = node.next[(nibble >> at) & 1] as Node | number;
    if (typeof next !== "number") {
      node = next;
      continue;
    }
    // One control character is as bad in a value as another.
    symbol = next === endOfString ? end : next <= end ? control : next;
    node = root;
  }
  return ((numbers.get(node) as number) << 8) | symbol;
}

const hex = (value: number) => `0x${value.toString(16).padStart(4, "0")}`;
const rows = nodes.map((node) => `\t${Array.from({ length: 16 }, (_, nibble) => hex(step(node, nibble))).join(", ")},`);
const accepting = nodes.flatMap((node, number) => {
  const last = nodes[number + 1]?.depth !== node.depth;
  return node.depth < 8 && last ? [number] : [];
});

console.log(`/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Made by scripts/huffman-table.ts; not to be edited. */
/* clang-format off */
#pragma once

#include <linux/types.h>

/*
 * HPACK's Huffman code (RFC 7541 appendix B), four bits at a time: [node][bits] is the next node << 8 | the character that
 * ended, 0 if none did. No code is shorter than five bits, so that there is one at most. The end of string, which must not
 * be coded (5.2), is character 2; characters 0 to 2 are 1. Nodes are numbered level by level.
 */
static const __u16 huffman_table[${nodes.length}][16] = {
${rows.map((row) => `\t{${row.slice(1, -1)}},`).join("\n")}
};

enum { k_huffman_end = 2 };

/* The nodes of fewer than eight bits, all of them ones: where a string may end (5.2). */
#define HUFFMAN_ENDS ${accepting.join(", ")}`);
