// Writes bpf/crypto/aes_tables.h to standard output: FIPS 197 5.1.1 (SubBytes) and 5.1.3 (MixColumns) in four tables.

const multiply = (a: number, b: number): number => {
  let product = 0;
  for (let bit = 0; bit < 8; bit++) {
    if ((b >> bit) & 1) product ^= a;
    a = ((a << 1) ^ (a & 0x80 ? 0x11b : 0)) & 0xff;
  }
  return product;
};

const inverse = (a: number): number => {
  for (let b = 0; b < 256; b++) if (multiply(a, b) === 1) return b;
  return 0;
};

const substitute = (byte: number): number => {
  const b = inverse(byte);
  let s = 0x63;
  for (let turn = 0; turn < 5; turn++) s ^= (b << turn) | (b >> (8 - turn));
  return s & 0xff;
};

const rotate = (word: number, bits: number): number => ((word << bits) | (word >>> ((32 - bits) % 32))) >>> 0;

const column = (byte: number): number => {
  const s = substitute(byte);
  return (multiply(s, 2) | (s << 8) | (s << 16) | (multiply(s, 3) << 24)) >>> 0;
};

const words = Array.from({ length: 256 }, (_, byte) => column(byte));
const rows = [0, 8, 16, 24].map((turn) => {
  const hex = words.map((word) => `0x${(turn === 0 ? word : rotate(word, turn)).toString(16).padStart(8, "0")},`);
  const lines = Array.from({ length: 32 }, (_, line) => `\t\t\t${hex.slice(line * 8, line * 8 + 8).join(" ")}`);
  return `\t\t{\n${lines.join("\n")}\n\t\t},\n`;
});

process.stdout.write(`/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Made by scripts/aes-tables.ts; not to be edited. */
/* clang-format off */
#pragma once

#include <linux/types.h>

/* row[k][x]: what byte x in row k of a column adds to the column: (2, 1, 1, 3) times SubBytes(x), turned by k rows. */
static const struct {
	__u32 row[4][256];
} aes_tables = {
	.row = {
${rows.join("")}	},
};
`);
