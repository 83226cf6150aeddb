import assert from "node:assert/strict";
import { test } from "node:test";
import { constantReturned, fieldRead } from "./accessor.ts";

/** Instructions as an assembler lists them, most significant digit first. */
function code(...words: readonly number[]): Buffer {
  const bytes = Buffer.alloc(words.length * 4);
  for (const [index, value] of words.entries()) bytes.writeUInt32LE(value, index * 4);
  return bytes;
}

const ret = 0xd65f03c0;
const bti = 0xd503245f;
const cases: readonly (readonly [what: string, code: Buffer, field: { offset: number; bytes: number } | undefined])[] =
  [
    ["ldr w0, [x0]", code(0xb9400000, ret), { offset: 0, bytes: 4 }],
    ["ldr w0, [x0, #8]", code(0xb9400800, ret), { offset: 8, bytes: 4 }],
    ["bti c; cbz x0, …; ldr w0, [x0]", code(bti, 0xb4000040, 0xb9400000, ret), { offset: 0, bytes: 4 }],
    [
      "cbnz x0, +12; mov w0, #0; ret; ldr w0, [x0, #8]",
      code(0xb5000060, 0x52800000, ret, 0xb9400800, ret),
      { offset: 8, bytes: 4 },
    ],
    ["ldr x0, [x0]", code(0xf9400000, ret), { offset: 0, bytes: 8 }],
    ["ldr w0, [x1]", code(0xb9400020, ret), undefined],
    ["ldr x0, [x0]; ldr w0, [x0]", code(0xf9400000, 0xb9400000, ret), undefined],
    ["no end", code(0xb9400000), undefined],
  ];

for (const [what, bytes, field] of cases) {
  test(`accessor on arm64: ${what}`, () => assert.deepEqual(fieldRead(bytes), field));
}

test("OpenSSL_version_num on arm64", () => {
  // mov x0, #0x0070; movk x0, #0x3050, lsl #16
  assert.equal(constantReturned(code(bti, 0xd2800e00, 0xf2a60a00, ret)), 0x30500070);
  assert.equal(constantReturned(code(0x52800e00, 0x72a60a00, ret, ret)), 0x30500070);
  assert.equal(constantReturned(code(0xb9400000, ret, ret, ret)), undefined);
});
