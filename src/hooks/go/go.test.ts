import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import fc from "fast-check";
import { examine } from "../discover.ts";
import { MemorySource } from "../elf/source.ts";
import { Workshop } from "../fixture.ts";
import { choosePoint } from "./entry.ts";
import { goLike, type GoShape } from "./fixture.ts";

const workshop = new Workshop();
after(() => workshop.close());

const styles = {
  "fixed addresses": ["-static", "-no-pie", "-Wl,-e,0"],
  "position-independent": ["-pie", "-Wl,-e,0"],
} as const;

function build(shape: GoShape, flags: readonly string[] = styles["fixed addresses"]): Buffer {
  return readFileSync(workshop.link("go", goLike(shape), flags));
}

/** A file that has lost what the kernel does not need. */
function withoutSections(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  copy.fill(0, 40, 48); // e_shoff
  copy.fill(0, 58, 64); // e_shentsize, e_shnum, e_shstrndx
  return copy;
}

for (const [style, flags] of Object.entries(styles)) {
  for (const lost of [false, true]) {
    test(`both functions are found through pclntab: ${style}${lost ? ", no sections" : ""}`, () => {
      const file = workshop.link("go", goLike(), flags);
      const symbols = execFileSync("nm", [file], { encoding: "utf8" });
      const address = (name: string) =>
        Number.parseInt(new RegExp(`^([0-9a-f]+) . ${name}$`, "m").exec(symbols)?.[1] ?? "", 16);
      const bytes = readFileSync(file);
      const { stacks, refusals, tls } = examine(new MemorySource(lost ? withoutSections(bytes) : bytes));
      assert.deepEqual({ refusals, tls }, { refusals: [], tls: "known" });
      const hooks = stacks.flatMap((stack) => stack.hooks);
      assert.deepEqual(
        hooks.map(({ program, address: where, point }) => [program, where, point.offset, point.instruction]),
        [
          ["go_gcm_seal", address("f1"), 21, "jbe"],
          ["go_chacha20_seal", address("f3"), 21, "jbe"],
        ],
      );
      for (const { fileOffset } of hooks) assert.ok([0x76, 0x0f].includes(bytes[fileOffset] ?? 0), "it is a branch");
      assert.equal(stacks[0]?.version, lost ? undefined : "1.26.8");
    });
  }
}

const refused: readonly (readonly [what: string, shape: GoShape, reason: RegExp])[] = [
  ["no assembly (purego)", { gcm: "crypto/aes.other" }, /no function .*gcmAesEnc/],
  ["other arguments", { gcmArguments: 88 }, /has 88 bytes of arguments, expected 96/],
  ["one of the two alone", { chacha: "main.other" }, /no function .*chacha20Poly1305Seal/],
  [
    "code that reads other arguments",
    { chacha: "main.other", more: "x/chacha20poly1305.chacha20Poly1305Seal" },
    /its arguments at \+32, \+56 are not read/,
  ],
  ["BoringSSL", { more: "crypto/internal/boring._Cfunc__goboringcrypto_EVP_AEAD_CTX_seal" }, /boringcrypto/],
  ["moduledata that disagrees", { namesShift: 8 }, /no Go moduledata/],
];

for (const [what, shape, reason] of refused) {
  test(`nothing is hooked, and it is said why: ${what}`, () => {
    const { stacks, refusals, tls } = examine(new MemorySource(build(shape)));
    assert.deepEqual([stacks, tls], [[], "unknown"]);
    assert.match(refusals[0]?.reason ?? "", reason);
  });
}

test("a copy of the functions that a program brings is hooked too", () => {
  const { stacks } = examine(new MemorySource(build({ more: "example.com/vendored/aes/gcm.gcmAesEnc" })));
  assert.deepEqual(
    stacks[0]?.hooks.map(({ program }) => program),
    ["go_gcm_seal", "go_gcm_seal", "go_chacha20_seal"],
  );
});

test("Go without TLS has none", () => {
  const { stacks, refusals } = examine(new MemorySource(build({ protocol: "main.encrypt" })));
  assert.deepEqual([stacks, refusals], [[], []]);
});

test("a damaged file gives hooks where they belong, or none", () => {
  const bytes = build({}, styles["position-independent"]);
  const whole = examine(new MemorySource(bytes));
  const places = new Set(whole.stacks.flatMap(({ hooks }) => hooks.map(({ fileOffset }) => fileOffset)));
  const table = bytes.indexOf(Buffer.from("f1ffffff00000108", "hex"));
  const near = fc.integer({ min: table, max: table + 512 });
  const anywhere = fc.integer({ min: 0, max: bytes.length - 9 });
  const value = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 0n, max: 4096n }));
  const change = fc.tuple(fc.oneof(near, anywhere), value, fc.constantFrom(1, 4, 8));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const copy = Buffer.from(bytes);
      for (const [at, number, size] of changes) {
        const word = Buffer.alloc(8);
        word.writeBigUInt64LE(number);
        word.copy(copy, at, 0, size);
      }
      for (const { stack, hooks } of examine(new MemorySource(copy)).stacks) {
        assert.equal(stack, "go");
        // Wherever it may be now: on the check of a function's stack, or nowhere.
        for (const { fileOffset, point } of hooks) {
          if (places.has(fileOffset)) continue;
          const code = copy.subarray(fileOffset - point.offset, fileOffset - point.offset + 256);
          assert.deepEqual(choosePoint(code, [8, 64, 80]), point);
        }
      }
    }),
  );
});

test("a name longer than any that is read is passed over", () => {
  const bytes = build({ more: `${"a".repeat(600)}/aes/gcm.gcmAesEnc` });
  const { stacks } = examine(new MemorySource(bytes));
  assert.equal(stacks[0]?.hooks.length, 2);
});

const start = "644c8b3425f8ffffff4c8da42478ffffff4d3b66100f8600010000554889e54881ec00010000";
const codes: readonly (readonly [what: string, code: string, verdict: RegExp | number])[] = [
  ["as it must be", `${start}488bbc2410010000c3`, 21],
  ["another argument", `${start}488bbc2418010000c3`, /\+8 are not read/],
  ["no check of the stack", "554889e5c3", /does not begin/],
  ["a check that jumps back", "4d3b661076f0554889e5488b7c2410", /is not the check/],
  ["another branch", "4d3b661072f0554889e5488b7c2410", /is not the check/],
  ["an instruction that is not understood", "c4e27918c0", /not understood/],
  ["an end in the middle", start.slice(0, 20), /not understood/],
  ["the stack pointer moves before", `4883ec10${start}`, /does not begin/],
];

for (const [what, hex, verdict] of codes) {
  test(`where to listen: ${what}`, () => {
    const point = choosePoint(Buffer.from(hex, "hex"), [8]);
    if (typeof verdict === "number") assert.equal(typeof point === "string" ? point : point.offset, verdict);
    else assert.match(typeof point === "string" ? point : "", verdict);
  });
}
