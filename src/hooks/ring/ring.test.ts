import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { examine } from "../discover.ts";
import { MemorySource } from "../elf/source.ts";
import { Workshop } from "../fixture.ts";
import { signature } from "../signature.ts";
import { hooked } from "./recognise.ts";

const workshop = new Workshop();
after(() => workshop.close());

interface Shape {
  /** Names of functions that are left out. */
  readonly without?: readonly string[];
  /** Copies of each function. */
  readonly copies?: number;
  /** Bytes by which functions are not aligned. */
  readonly shift?: number;
  readonly text?: string;
  /** Of each function's code, the byte that is another. */
  readonly changed?: number;
}

/** A library with ring's functions, as far as they are known. */
function build(shape: Shape = {}): string {
  const { without = [], copies = 1, shift = 0, text = "rustls", changed } = shape;
  const functions = hooked
    .filter(({ symbol }) => !without.includes(symbol))
    .flatMap(({ symbol, code }) => {
      const bytes = [...signature(code).bytes];
      if (changed !== undefined) bytes[changed] = (bytes[changed] ?? 0) ^ 1;
      const body = `.byte ${bytes.join(", ")}\\n.balign 64, 0xcc\\n`;
      return Array.from({ length: copies }, (_, copy) => `${symbol}_${copy}:\\n.skip ${shift}, 0xcc\\n${body}`);
    });
  const code = `asm(".text\\n.balign 64, 0xcc\\n${functions.join("")}");
const char label[] = "${text} c ap traffic";`;
  return workshop.link("ring.so", code, ["-shared"]);
}

const examined = (shape?: Shape) => examine(new MemorySource(readFileSync(build(shape))));

test("each function is found, and hooked where its signature says", () => {
  const path = build();
  const symbols = execFileSync("nm", [path], { encoding: "utf8" });
  const address = (name: string) =>
    Number.parseInt(new RegExp(`^([0-9a-f]+) . ${name}_0$`, "m").exec(symbols)?.[1] ?? "", 16);
  const { stacks, refusals, tls } = examine(new MemorySource(readFileSync(path)));
  assert.deepEqual({ refusals, tls, stack: stacks[0]?.stack }, { refusals: [], tls: "known", stack: "ring" });
  assert.deepEqual(
    stacks[0]?.hooks.map((hook) => [hook.program, hook.symbol, hook.address, hook.point.offset]),
    hooked.map(({ program, symbol, at }) => [program, symbol, address(symbol), at]),
  );
});

test("a breakpoint replaces the start of an instruction, says a full disassembler", () => {
  for (const { symbol, code, at } of hooked) {
    const path = workshop.link("one.so", `asm(".text\\none: .byte ${[...signature(code).bytes].join(", ")}");`, [
      "-shared",
    ]);
    const listing = execFileSync("llvm-objdump-19", ["-d", "--no-leading-headers", path], { encoding: "latin1" });
    const starts = [...listing.matchAll(/^ *([0-9a-f]+): /gm)].map(([, place = ""]) => Number.parseInt(place, 16));
    assert.ok(starts.includes((starts[0] ?? 0) + at), `${symbol}: ${listing}`);
  }
});

test("two versions in one program are both hooked", () => {
  assert.equal(examined({ copies: 2 }).stacks[0]?.hooks.length, hooked.length * 2);
});

const optional = hooked.filter(({ required }) => !required).map(({ symbol }) => symbol);

test("what only some versions have may be missing", () => {
  assert.equal(examined({ without: optional }).stacks[0]?.hooks.length, hooked.length - optional.length);
});

const refused: readonly (readonly [what: string, shape: Shape, reason: RegExp | undefined])[] = [
  ["a function that begins in too many places", { copies: 5 }, /more than 4 functions begin like/],
  ["one is missing", { without: ["aes_hw_ctr32_encrypt_blocks"] }, /no code like that of aes_hw_ctr32/],
  ["places that no function begins at", { shift: 8 }, undefined],
  ["other code", { changed: 3 }, undefined],
  ["another library's", { text: "OpenSSL 3" }, undefined],
];

for (const [what, shape, reason] of refused) {
  test(`nothing is hooked, and it is said: ${what}`, () => {
    const { stacks, refusals, tls } = examined(shape);
    assert.deepEqual([stacks, tls, refusals.length], [[], "unknown", reason === undefined ? 0 : 1]);
    if (reason !== undefined) assert.match(refusals[0]?.reason ?? "", reason);
  });
}
