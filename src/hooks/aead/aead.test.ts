import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import fc from "fast-check";
import { examine } from "../discover.ts";
import { MemorySource } from "../elf/source.ts";
import { Workshop } from "../fixture.ts";
import { decode } from "../x86/decode.ts";
import { storesOf } from "../x86/stores.ts";
import { aeadLike } from "./fixture.ts";
import type { AeadShape } from "./fixture.ts";

const workshop = new Workshop();
after(() => workshop.close());

const unresolved = "-Wl,--unresolved-symbols=ignore-all";
/** As libraries and programs are built: constants of addresses are relocated, or are what they are. */
const styles = {
  library: ["-shared", "-fvisibility=hidden"],
  "position-independent": ["-pie", unresolved],
  "fixed addresses": ["-fno-pic", "-no-pie", unresolved],
  "less optimised": ["-shared", "-fvisibility=hidden", "-O1"],
  "for size": ["-shared", "-fvisibility=hidden", "-Os"],
} as const;

function build(shape: AeadShape, flags: readonly string[] = styles.library): string {
  return workshop.link("aead.so", aeadLike(shape), flags);
}

for (const library of ["BoringSSL", "AWS-LC"] as const) {
  for (const [style, flags] of Object.entries(styles)) {
    for (const stripped of [false, true]) {
      test(`its functions are found: ${library}, ${style}${stripped ? ", stripped" : ""}`, () => {
        const path = build({ library }, flags);
        const symbols = execFileSync("nm", [path], { encoding: "utf8" });
        const address = (name: string) =>
          Number.parseInt(new RegExp(`^([0-9a-f]+) . ${name}$`, "m").exec(symbols)?.[1] ?? "", 16);
        if (stripped) execFileSync("strip", ["-s", path]);
        const { stacks, refusals, tls } = examine(new MemorySource(readFileSync(path)));
        assert.deepEqual({ refusals, tls }, { refusals: [], tls: "known" });
        assert.deepEqual([stacks[0]?.stack, stacks[0]?.version], ["boringssl", library]);
        const found = stacks.flatMap(({ hooks }) => hooks.map((hook) => `${hook.program} ${hook.address}`));
        const wanted = [
          ["aead_gcm_init", "tls12_init"],
          ["aead_gcm_init", "tls13_init"],
          ["aead_chacha20_init", "chacha20_init"],
          ["aead_seal", "tls12_seal"],
          ["aead_seal", "tls13_seal"],
          ["aead_seal", "chacha20_seal"],
        ].map(([program, name = ""]) => `${program} ${address(name)}`);
        assert.deepEqual(found.toSorted(), wanted.toSorted());
      });
    }
  }
}

const refused: readonly (readonly [what: string, shape: AeadShape, reason: RegExp | undefined])[] = [
  ["no ChaCha20-Poly1305", { chacha20: false }, /none of ChaCha20-Poly1305's/],
  ["no AES-GCM", { gcm: [] }, /none of AES-GCM's/],
  ["AES-GCM for one length of key", { gcm: [16] }, /none of AES-GCM's/],
  ["tables without a function", { open: "0" }, undefined],
  ["code that is not understood", { before: 'asm volatile("vzeroupper");' }, /init: the start of its code/],
];

for (const [what, shape, reason] of refused) {
  test(`nothing is hooked, and it is said why: ${what}`, () => {
    const flags = [...styles.library, "-fomit-frame-pointer"];
    const { stacks, refusals, tls } = examine(new MemorySource(readFileSync(build(shape, flags))));
    assert.deepEqual([stacks, tls], [[], "unknown"]);
    assert.equal(refusals.length, reason === undefined ? 0 : 1);
    if (reason !== undefined) assert.match(refusals[0]?.reason ?? "", reason);
  });
}

test("without a sign of TLS code the code is not read", () => {
  const code = aeadLike().replace("c ap traffic", "of no meaning");
  const { stacks, tls } = examine(new MemorySource(readFileSync(workshop.link("aead.so", code, styles.library))));
  assert.deepEqual([stacks, tls], [[], "none"]);
});

test("a damaged file gives hooks at the start of an instruction, or none", () => {
  const bytes = readFileSync(build({ library: "AWS-LC" }));
  const change = fc.tuple(fc.integer({ min: 0, max: bytes.length - 9 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), fc.constantFrom(1, 4, 8), (changes, size) => {
      const copy = Buffer.from(bytes);
      for (const [at, number] of changes) {
        const word = Buffer.alloc(8);
        word.writeBigUInt64LE(number);
        word.copy(copy, at, 0, size);
      }
      for (const { hooks } of examine(new MemorySource(copy)).stacks) {
        for (const { fileOffset, point } of hooks) {
          const start = fileOffset - point.offset;
          const code = copy.subarray(start, start + 32);
          let at = 0;
          while (at < point.offset) at += decode(code, at)?.length ?? Number.NaN;
          assert.equal(at, point.offset);
          assert.notEqual(decode(code, at), undefined);
        }
      }
    }),
  );
});

/** Code, and the words that it leaves where: each address is relative to the code's start. */
const codes: readonly (readonly [what: string, code: string, words: Record<number, number>, returned: boolean])[] = [
  ["a constant", "c705f600000010 0c1010 c3", { 0x100: 0x10100c10 }, true],
  ["a wide constant", "48c705f5000000 00107406 c3", { 0x100: 0x06741000 }, true],
  ["a constant by a register", "48b8100c101001000000 488905ef000000 c3", { 0x100: 0x110100c10 }, true],
  ["an address by a register", "488d05f9010000 488905f2000000 c3", { 0x100: 0x200 }, true],
  [
    "two addresses by a vector register",
    "488d05f9010000 66480f6ec0 488d05fd020000 66480f6ec8 660f6cc1 0f1105dd000000 c3",
    { 0x100: 0x200, 0x108: 0x310 },
    true,
  ],
  ["memory cleared", "660fefc0 0f2905f5000000 c3", { 0x100: 0, 0x108: 0 }, true],
  ["by a base register", "488d15f9000000 31c0 48894208 c3", { 0x108: 0 }, true],
  ["what a call leaves is not known", "e800000000 488905f4000000 c3", {}, false],
  ["an unknown register", "488905f9000000 c3", {}, true],
  ["it is written over", "c705f600000010 0c1010 488905ef000000 c3", {}, true],
];

for (const [what, code, words, returned] of codes) {
  test(`what code stores: ${what}`, () => {
    const bytes = Buffer.concat([Buffer.from(code.replaceAll(" ", ""), "hex"), Buffer.alloc(16, 0xcc)]);
    const base = 0x1000;
    const stores = storesOf(bytes, base, () => undefined);
    const found = Object.fromEntries([...stores.words].map(([address, value]) => [address - base, value]));
    const moved = Object.fromEntries(
      Object.entries(words).map(([address, value]) => [address, what.includes("address") ? value + base : value]),
    );
    assert.deepEqual([found, stores.returned], [moved, returned]);
  });
}

test("any code is followed to an end inside it", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (code) => {
      const { end } = storesOf(Buffer.from(code), 0x1000, () => undefined);
      assert.ok(end <= code.length);
    }),
    { numRuns: 5000 },
  );
});
