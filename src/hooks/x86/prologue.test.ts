import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import fc from "fast-check";
import { locate, readImage } from "../elf/image.ts";
import { FileSource } from "../elf/source.ts";
import { lookup } from "../elf/symbols.ts";
import { constantReturned, fieldRead } from "./accessor.ts";
import { decode } from "./decode.ts";
import { choosePoint, choosePointIf } from "./prologue.ts";

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(" ", ""), "hex");

/** The starts of real functions, and where the breakpoint belongs. */
const prologues: readonly (readonly [what: string, code: string, args: number, offset: number, cost: string])[] = [
  ["Debian 12 EVP_CipherUpdate", "8b4710 85c0 7409 e944320000", 5, 5, "emulated"],
  ["Debian 12 EVP_CipherInit_ex", "4883ec10 6a00 e885f3ffff 4883c418 c3", 6, 6, "emulated"],
  ["Debian 12 EVP_CIPHER_CTX_ctrl", "4156 4863d2 4155", 4, 0, "emulated"],
  ["Debian 12 BIO_write", "4883ec18 64488b042528000000 4889442408 31c0 85d2 7e12", 3, 22, "emulated"],
  ["endbr64, then push", "f30f1efa 55 4889e5", 6, 4, "emulated"],
  ["endbr64, then push of a high register", "f30f1efa 4157 4889e5", 6, 4, "emulated"],
  ["OpenSSL 1.1.1 EVP_Cipher", "488b07 89c9 ff6020", 4, 0, "single-step"],
  ["an argument copied away is still intact", "4989fc 4889f3 55", 6, 6, "emulated"],
  ["an argument overwritten", "31ff 55", 6, 0, "single-step"],
  ["a register that is no argument of this function", "31c9 55", 3, 2, "emulated"],
  ["memory that an argument points to is changed", "c70200000000 55", 3, 0, "single-step"],
  ["an instruction that is not understood", "c5f877 55", 6, 0, "single-step"],
  ["never past a branch", "0fa2 7400 55", 6, 0, "single-step"],
  ["an indirect jump ends the line", "488b07 ffe0 55", 6, 0, "single-step"],
  ["a nop that recent kernels emulate", "f30f1efa 0f1f440000 31ff c3", 6, 4, "emulated-recent"],
  ["a loop back over the place", "8b07 85c0 55 ebfb", 6, 0, "single-step"],
];

for (const [what, code, args, offset, cost] of prologues) {
  test(`breakpoint: ${what}`, () => {
    const point = choosePoint(bytes(code), args, true);
    assert.deepEqual([point.offset, point.cost], [offset, cost], point.reason);
  });
}

const encrypting = { offset: 16, bytes: 4 } as const;
const branches: readonly (readonly [what: string, code: string, offset: number | undefined])[] = [
  ["Debian 12 EVP_CipherUpdate", "8b4710 85c0 7409 e944320000 0f1f4000 e9b04eecff", 7],
  ["with endbr64", "f30f1efa 8b4710 85c0 7409 e944320000 0f1f4000 e9b04eecff", 11],
  ["a far field that is another", "8b8710000100 85c0 7409 e944320000 0f1f4000 c3", undefined],
  ["another field", "8b4714 85c0 7409 e944320000 0f1f4000 c3", undefined],
  ["eight bytes of it", "488b4710 4885c0 7409 e944320000 0f1f4000 c3", undefined],
  ["the other way round", "8b4710 85c0 7509 e944320000 0f1f4000 c3", undefined],
  ["both ways lead there", "8b4710 85c0 7400 e944320000 c3", undefined],
  ["the other way is behind us", "8b4710 85c0 74f0 e944320000 c3", undefined],
  ["something comes back", "8b4710 85c0 7409 e944320000 0f1f4000 ebf5", undefined],
  ["what follows is stepped", "8b4710 85c0 7409 31d2 e944320000 0f1f4000 c3", undefined],
  ["an argument is changed before", "31d2 8b4710 85c0 7409 e944320000 0f1f4000 c3", undefined],
];

for (const [what, code, offset] of branches) {
  test(`breakpoint behind a branch: ${what}`, () => {
    assert.equal(choosePointIf(bytes(code), encrypting, true)?.offset, offset);
    assert.equal(choosePointIf(bytes(code), encrypting, false), undefined, "who knows what comes back");
  });
}

test("a function of unknown length is probed at its entry only", () => {
  assert.equal(choosePoint(bytes("8b4710 85c0 7409"), 5, false).offset, 0);
});

const accessors: readonly (readonly [
  what: string,
  code: string,
  field: { offset: number; bytes: number } | undefined,
])[] = [
  ["nid, Debian 12", "8b07 31ff c3", { offset: 0, bytes: 4 }],
  ["key length, Debian 12", "8b4708 31ff c3", { offset: 8, bytes: 4 }],
  ["nid with a check for NULL, Node 22", "31c0 4885ff 7402 8b07 c3", { offset: 0, bytes: 4 }],
  ["with endbr64 and a frame", "f30f1efa 55 4889e5 8b4708 5d c3", { offset: 8, bytes: 4 }],
  ["with jne", "4885ff 7503 31c0c3 8b4708 c3", { offset: 8, bytes: 4 }],
  ["a pointer", "488b07 c3", { offset: 0, bytes: 8 }],
  ["a far field", "8b8700010000 c3", { offset: 256, bytes: 4 }],
  ["a field of a field", "488b07 8b00 c3", undefined],
  ["a computed value", "8b07 83f001 c3", undefined],
  ["of the second argument", "8b06 c3", undefined],
  ["cleared after reading", "8b07 31c0 c3", undefined],
  ["no field", "31c0 c3", undefined],
  ["no end", "8b07", undefined],
];

for (const [what, code, field] of accessors) {
  test(`accessor: ${what}`, () => assert.deepEqual(fieldRead(bytes(code)), field));
}

test("OpenSSL_version_num", () => {
  assert.equal(constantReturned(bytes("f30f1efa b870005030 c3")), 0x30500070);
  assert.equal(constantReturned(bytes("488b07 c3")), undefined);
});

test("any bytes give an answer inside them", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 0, max: 6 }), (code, args) => {
      const buffer = Buffer.from(code);
      const { offset } = choosePoint(buffer, args, true);
      assert.ok(offset === 0 || offset < buffer.length);
      const point = choosePointIf(buffer, encrypting, true);
      assert.ok(point === undefined || point.offset < buffer.length);
      fieldRead(buffer);
      constantReturned(buffer);
    }),
    { numRuns: 5000 },
  );
});

test("lengths agree with a full disassembler, around libcrypto's functions in Node", {
  skip: process.arch !== "x64",
}, () => {
  using source = new FileSource(process.execPath);
  const image = readImage(source);
  const symbol = lookup(image, ["EVP_CipherUpdate"]).defined.get("EVP_CipherUpdate")?.[0];
  assert.ok(symbol);
  const place = locate(image, symbol.address);
  assert.ok(place);
  const length = 200_000;
  const code = source.read(place.offset, length);
  const range = [`--start-address=${symbol.address}`, `--stop-address=${symbol.address + length}`];
  const listing = execFileSync("llvm-objdump-19", ["-d", "--no-leading-headers", ...range, process.execPath], {
    encoding: "latin1",
    maxBuffer: 256 << 20,
  });
  let understood = 0;
  let all = 0;
  for (const [, address = "", hex = ""] of listing.matchAll(/^ *([0-9a-f]+): ((?:[0-9a-f]{2}[ \t])+)/gm)) {
    const at = Number.parseInt(address, 16) - symbol.address;
    const expected = hex.trim().split(/\s+/).length;
    if (at + expected > length) continue;
    all += 1;
    const found = decode(code, at);
    if (found === undefined) continue;
    understood += 1;
    assert.equal(found.length, expected, `${address}: ${hex} taken for ${found.text}`);
  }
  assert.ok(all > 20_000 && understood > all * 0.7, `${understood} of ${all} understood`);
});
