import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { bytes, type Codec, list, struct, text, u8, u16, u32, u64 } from "./codec.ts";

interface Shape {
  readonly name: string;
  readonly flags: number;
  readonly ports: readonly number[];
  readonly address: Buffer;
  readonly time: bigint;
}

const shape: Codec<Shape> = struct<Shape>(48, {
  name: [0, text(8)],
  flags: [8, u8],
  ports: [10, list(u16, 4)],
  address: [20, bytes(16)],
  time: [40, u64],
});

const shapes = fc.record(
  {
    name: fc.string({ unit: "grapheme-ascii", maxLength: 8 }).map((name) => name.replaceAll("\0", "")),
    flags: fc.nat(255),
    ports: fc.array(fc.nat(65535), { minLength: 4, maxLength: 4 }),
    address: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((address) => Buffer.from(address)),
    time: fc.bigInt({ min: 0n, max: 0xffffffffffffffffn }),
  },
  { noNullPrototype: true },
);

test("what is encoded is decoded again, at any offset, and nothing else is touched", () => {
  fc.assert(
    fc.property(shapes, fc.nat(9), (value, offset) => {
      const buffer = Buffer.alloc(70, 0xee);
      shape.encode(value, buffer, offset);
      assert.deepEqual(shape.decode(buffer, offset), value);
      assert.ok(buffer.subarray(0, offset).every((byte) => byte === 0xee));
      assert.ok(buffer.subarray(offset + 48).every((byte) => byte === 0xee));
    }),
  );
});

test("padding is zero whatever was there before, as keys of maps are compared whole", () => {
  const value = { name: "a", flags: 1, ports: [], address: Buffer.alloc(0), time: 0n };
  assert.deepEqual(shape.encode(value, Buffer.alloc(48, 0xff)), shape.encode(value));
});

test("short strings, arrays and Buffers are filled with zeros; long ones are refused", () => {
  assert.deepEqual(list(u32, 3).encode([7]), Buffer.from("070000000000000000000000", "hex"));
  assert.deepEqual(text(4).encode("ab"), Buffer.from("ab\0\0"));
  assert.equal(text(4).decode(Buffer.from("abcdef")), "abcd");
  assert.throws(() => list(u32, 3).encode([1, 2, 3, 4]), RangeError);
  assert.throws(() => text(4).encode("äöü"), RangeError);
  assert.throws(() => bytes(4).encode(Buffer.alloc(5)), RangeError);
  assert.throws(() => u16.encode(65536), RangeError);
});
