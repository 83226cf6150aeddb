import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import fc from "fast-check";
import { examine } from "../discover.ts";
import { Workshop, libcryptoLike } from "../fixture.ts";
import { readDynamic, readInterpreter } from "./dynamic.ts";
import { readImage } from "./image.ts";
import { ElfError, FileSource, MemorySource } from "./source.ts";
import type { Source } from "./source.ts";
import { lookup } from "./symbols.ts";

const workshop = new Workshop();
after(() => workshop.close());

/** Another file with some bytes replaced, and a count of what is read. */
class Mutated implements Source {
  readonly name = "mutated";
  readonly size: number;
  bytesRead = 0;
  readonly #base: Source;
  readonly #changes: readonly (readonly [at: number, bytes: Buffer])[];

  constructor(base: Source, changes: readonly (readonly [number, Buffer])[], size = base.size) {
    this.size = size;
    this.#base = base;
    this.#changes = changes;
  }

  read(offset: number, length: number): Buffer {
    if (!Number.isSafeInteger(offset) || offset < 0 || length < 0 || offset + length > this.size) {
      throw new ElfError("elf-malformed", "out of range");
    }
    this.bytesRead += length;
    const bytes = Buffer.from(this.#base.read(offset, length));
    for (const [at, change] of this.#changes) {
      for (let index = 0; index < change.length; index++) {
        const place = at + index - offset;
        if (place >= 0 && place < length) bytes[place] = change[index] ?? 0;
      }
    }
    return bytes;
  }
}

/** Numbers at which readers stumble. */
const number = fc.oneof(
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  fc.constantFrom(0n, 1n, 0x7fffffffn, 0xffffffffn, 0x7fffffffffffffffn, 0xffffffffffffffffn, 0x1fffffffffffffn),
  fc.bigInt({ min: 0n, max: 0x20000n }),
);
const change = (places: fc.Arbitrary<number>): fc.Arbitrary<readonly [number, Buffer]> =>
  fc.tuple(places, number, fc.constantFrom(1, 2, 4, 8)).map(([at, value, length]) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    return [at, bytes.subarray(0, length)] as const;
  });

function check(source: Mutated, readMax: number): void {
  try {
    const { tls } = examine(source);
    assert.ok(["known", "none", "unknown"].includes(tls));
    const image = readImage(source);
    readDynamic(image);
    readInterpreter(image);
  } catch (error) {
    if (!(error instanceof ElfError)) throw error;
  }
  assert.ok(source.bytesRead <= readMax, `${source.bytesRead} bytes read`);
}

for (const style of ["gnu", "sysv"]) {
  test(`a damaged file gives an answer or an ElfError, and bounded reading (${style} hash)`, () => {
    const bytes = readFileSync(workshop.link("whole.so", libcryptoLike, ["-shared", `-Wl,--hash-style=${style}`]));
    const base = new MemorySource(bytes);
    fc.assert(
      fc.property(
        fc.array(change(fc.integer({ min: 0, max: bytes.length - 1 })), { maxLength: 6 }),
        fc.array(change(fc.integer({ min: 0, max: 1024 })), { maxLength: 3 }),
        fc.option(fc.integer({ min: 0, max: bytes.length }), { nil: bytes.length }),
        (anywhere, headers, size) => check(new Mutated(base, [...anywhere, ...headers], size), 64 << 20),
      ),
      { numRuns: 3000 },
    );
  });
}

test("the headers of a large executable, damaged, do not make it be read many times over", () => {
  using base = new FileSource(process.execPath);
  fc.assert(
    fc.property(fc.array(change(fc.integer({ min: 0, max: 900 })), { minLength: 1, maxLength: 4 }), (changes) =>
      check(new Mutated(base, changes), 6 * base.size),
    ),
    { numRuns: 30 },
  );
});

test("a large executable is not read whole to find its functions", () => {
  using base = new FileSource(process.execPath);
  const source = new Mutated(base, []);
  const found = lookup(readImage(source), ["EVP_CipherUpdate", "BIO_write"]);
  assert.deepEqual([...found.defined.keys()].sort(), ["BIO_write", "EVP_CipherUpdate"]);
  assert.ok(source.bytesRead < base.size / 10, `${source.bytesRead} of ${base.size} bytes read`);
});

test("what is needed, its own name, and the search paths", () => {
  const flags = ["-shared", "-Wl,-soname,libown.so.1", "-Wl,--no-as-needed", "-lc", "-Wl,--enable-new-dtags"];
  using source = new FileSource(
    workshop.link("libown.so", "int f(void) { return 0; }", [...flags, "-Wl,-rpath,$ORIGIN/sub"]),
  );
  const dynamic = readDynamic(readImage(source));
  assert.deepEqual([dynamic?.needed, dynamic?.soname, dynamic?.runpath], [["libc.so.6"], "libown.so.1", "$ORIGIN/sub"]);
});

test("imports are told from definitions", () => {
  const code = "int outside(); int inside(void) { return outside(); }";
  using source = new FileSource(workshop.link("imports.so", code, ["-shared"]));
  const { defined, imported } = lookup(readImage(source), ["inside", "outside", "neither"]);
  assert.deepEqual([[...defined.keys()], [...imported]], [["inside"], ["outside"]]);
});
