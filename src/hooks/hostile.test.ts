/*
 * The promise: whatever a workload puts where a program, its interpreter or its libraries should be, the agent does not
 * wait for it, opens no device, reads no more than it must, and hooks nothing. Needs root.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { discover, examine } from "./discover.ts";
import { ElfError, FileSource, type Source } from "./elf/source.ts";
import { libcryptoLike, Workshop } from "./fixture.ts";
import { installedCrypto } from "./installed.ts";
import { libraries } from "./libraries.ts";

const workshop = new Workshop();
after(() => workshop.close());

/** What may stand in a file's place. Nothing answers on that device: to open it would be ENXIO. */
const kinds: Readonly<Record<string, (path: string) => void>> = {
  "a FIFO": (path) => execFileSync("mkfifo", [path]),
  "a device": (path) => execFileSync("mknod", [path, "c", "4095", "0"]),
  "a folder": (path) => mkdirSync(path),
};

for (const [what, make] of Object.entries(kinds)) {
  test(`${what} as a program, an interpreter, a loader, a library and its lists is not waited for`, () => {
    const root = join(workshop.directory, `root of ${what}`);
    mkdirSync(join(root, "bin"), { recursive: true });
    for (const path of ["/etc/ld.so.preload", "/etc/ld.so.cache", "/lib/libneeded.so", "/bin/it", "/lib/ld.so"]) {
      mkdirSync(join(root, path, ".."), { recursive: true });
      make(join(root, path));
    }
    assert.throws(
      () => discover(join(root, "bin/it")),
      (error) => error instanceof ElfError && error.message.endsWith("is not a regular file"),
    );
    writeFileSync(join(root, "bin/script"), "#!/bin/it\n");
    execFileSync("cp", [program("needy"), join(root, "bin/needy")]);
    for (const path of ["/bin/it", "/bin/script", "/bin/needy"]) libraries(path, { root });
    const { missing } = libraries("/bin/needy", { root });
    assert.deepEqual(
      missing.map(({ name }) => name),
      ["libneeded.so"],
    );
    assert.deepEqual(installedCrypto({ root }), []);
  });
}

/** Needs `libneeded.so`, and has the loader `/lib/ld.so`. */
function program(name: string): string {
  const library = workshop.link("libneeded.so", "int needed(void) { return 0; }", [
    "-shared",
    "-Wl,-soname,libneeded.so",
  ]);
  const flags = ["-pie", "-Wl,-e,start", "-Wl,--dynamic-linker=/lib/ld.so", library];
  return workshop.link(name, "int needed(void); void start(void) { needed(); }", flags);
}

test("a file of which the workload holds a lease is not waited for", async () => {
  const path = workshop.link("leased", libcryptoLike, ["-shared"]);
  const hold = `import fcntl, sys, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1], "r+b")
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()`;
  const holder = spawn("python3", ["-c", hold, path], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    await once(holder.stdout, "data");
    assert.throws(() => discover(path), { code: "elf-unreadable" });
  } finally {
    holder.kill();
  }
});

/** Another file, and a count of what is read of it. */
class Counted implements Source {
  readonly name = "counted";
  readonly size: number;
  bytesRead = 0;
  readonly #base: Source;
  readonly #onRead: () => void;

  constructor(base: Source, onRead: () => void = () => undefined) {
    this.#base = base;
    this.size = base.size;
    this.#onRead = onRead;
  }

  read(offset: number, length: number): Buffer {
    this.#onRead();
    this.bytesRead += length;
    return this.#base.read(offset, length);
  }
}

interface Shape {
  readonly size: number;
  readonly segments?: readonly {
    readonly type: number;
    readonly flags?: number;
    readonly offset?: number;
    readonly size: number;
  }[];
  readonly sections?: readonly {
    readonly type: number;
    readonly flags?: number;
    readonly offset: number;
    readonly size: number;
    readonly link?: number;
  }[];
}

/** A sparse x86-64 executable of headers alone. */
function sparse(name: string, { size, segments = [], sections = [] }: Shape): string {
  const sectionsAt = 64 + segments.length * 56;
  const bytes = Buffer.alloc(sectionsAt + sections.length * 64);
  bytes.write("\x7fELF\x02\x01\x01", "latin1");
  bytes.writeUInt16LE(2, 16);
  bytes.writeUInt16LE(62, 18);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeBigUInt64LE(BigInt(sectionsAt), 40);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(segments.length, 56);
  bytes.writeUInt16LE(64, 58);
  bytes.writeUInt16LE(sections.length, 60);
  for (const [index, { type, flags = 4, offset = 0, size: length }] of segments.entries()) {
    const at = 64 + index * 56;
    bytes.writeUInt32LE(type, at);
    bytes.writeUInt32LE(flags, at + 4);
    for (const [field, value] of [
      [8, offset],
      [16, 0x400000 + offset],
      [32, length],
      [40, length],
    ] as const)
      bytes.writeBigUInt64LE(BigInt(value), at + field);
  }
  for (const [index, { type, flags = 0, offset, size: length, link = 0 }] of sections.entries()) {
    const at = sectionsAt + index * 64;
    bytes.writeUInt32LE(type, at + 4);
    bytes.writeBigUInt64LE(BigInt(flags), at + 8);
    bytes.writeBigUInt64LE(BigInt(offset), at + 24);
    bytes.writeBigUInt64LE(BigInt(length), at + 32);
    bytes.writeUInt32LE(link, at + 40);
  }
  const path = join(workshop.directory, name);
  const file = openSync(path, "w");
  writeSync(file, bytes);
  ftruncateSync(file, size);
  return path;
}

const megabyte = 1 << 20;
const load = 1;
const note = 4;

/** So many symbols, with 60 MB of strings for their names. */
function symbolTable(count: number): Shape {
  return {
    size: 400 * megabyte,
    segments: [{ type: load, size: megabyte }],
    sections: [
      { type: 2, offset: megabyte, size: count * 24, link: 1 },
      { type: 3, offset: 200 * megabyte, size: 60 * megabyte },
    ],
  };
}

/** Bytes that may be read of each, whatever its size: what is loaded is searched for several texts up to a bound. */
const shapes: readonly (readonly [what: string, shape: Shape, readMax: number, tls: string])[] = [
  [
    "2 GB of read-only data",
    { size: 2048 * megabyte, segments: [{ type: load, size: 2048 * megabyte }] },
    megabyte,
    "unknown",
  ],
  ["nothing loaded of 1 TB", { size: 2 ** 40, segments: [] }, megabyte, "none"],
  [
    "500 segments that are one",
    { size: megabyte, segments: Array.from({ length: 500 }, () => ({ type: load, size: megabyte })) },
    600 * megabyte,
    "unknown",
  ],
  [
    "more program headers than are read",
    { size: megabyte, segments: Array.from({ length: 600 }, () => ({ type: load, size: 9 })) },
    megabyte,
    "unknown",
  ],
  ["five million symbols", symbolTable(5_000_000), 8 * megabyte, "none"],
  ["64 MB of strings and four million symbols", symbolTable(4_000_000), 200 * megabyte, "none"],
  [
    "notes of no length",
    { size: megabyte, segments: Array.from({ length: 500 }, () => ({ type: note, size: 65_536, offset: 32_768 })) },
    70 * megabyte,
    "none",
  ],
];

for (const [what, shape, readMax, tls] of shapes) {
  test(`bounded reading: ${what}`, () => {
    using file = new FileSource(sparse("sparse", shape));
    const source = new Counted(file);
    const found = examine(source);
    assert.deepEqual([found.stacks, found.tls], [[], tls]);
    assert.ok(source.bytesRead <= readMax, `${source.bytesRead} bytes read`);
    if (tls === "unknown") assert.notEqual(found.evidence[0]?.sign ?? "", "");
  });
}

test("a file that changes while it is read gives an answer or an error, and no hook but on code that was there", () => {
  const path = workshop.link("changing.so", libcryptoLike, ["-shared"]);
  const whole = examine(new FileSource(path));
  const places = new Set(whole.stacks.flatMap(({ hooks }) => hooks.map(({ fileOffset }) => fileOffset)));
  assert.ok(places.size >= 6);
  const bytes = readFileSync(path);
  let reads = 0;
  examine(new Counted(new FileSource(path), () => reads++));
  for (let at = 0; at <= reads; at++) {
    writeFileSync(path, bytes);
    using file = new FileSource(path);
    let count = 0;
    const source = new Counted(file, () => {
      if (count++ === at) truncateSync(path, 64 + at * 100);
    });
    for (const { hooks } of examine(source).stacks)
      for (const { fileOffset } of hooks) assert.ok(places.has(fileOffset), `${fileOffset} is no place to hook`);
  }
});

test("links that go round, and paths without end, end", () => {
  const root = join(workshop.directory, "round");
  mkdirSync(join(root, "bin"), { recursive: true });
  symlinkSync("/bin/two", join(root, "bin/one"));
  symlinkSync("one", join(root, "bin/two"));
  symlinkSync("self/self/self/self", join(root, "bin/self"));
  for (const path of ["/bin/one", "/bin/self", `/${"bin/../".repeat(5000)}bin/one`]) {
    assert.deepEqual(libraries(path, { root }).files, []);
  }
});
