import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { Discoverer } from "./discover.ts";
import { MemorySource } from "./elf/source.ts";
import { Workshop, libcryptoLike } from "./fixture.ts";
import { installedCrypto } from "./installed.ts";
import { parseLibraryCache } from "./ld-cache.ts";
import { libraries } from "./libraries.ts";
import { parseMaps, processFiles } from "./process-files.ts";
import { coverageOf, fileReport, formatReport, processReport } from "./report.ts";
import { resolveInRoot } from "./root-path.ts";
import { interpreterOf } from "./script.ts";

const workshop = new Workshop();
after(() => workshop.close());

test("an executable's libraries are those that its own process has mapped", () => {
  const plan = libraries(process.execPath);
  const planned = new Set(plan.files.map(({ path }) => path));
  const mapped = processFiles(process.pid).map(({ name }) => name);
  assert.deepEqual(plan.missing, []);
  for (const name of mapped) {
    if (name.endsWith(".node")) continue;
    assert.ok(planned.has(name), `${name} is mapped but was not foreseen`);
  }
});

test("the closure is followed through RUNPATH, RPATH with $ORIGIN and LD_LIBRARY_PATH", () => {
  const top = workshop.directory;
  for (const directory of ["run", "deep", "env"]) mkdirSync(join(top, directory), { recursive: true });
  workshop.link("env/libthird.so", libcryptoLike, ["-shared", "-Wl,-soname,libthird.so"]);
  workshop.link("deep/libsecond.so", "int third(); int second(void) { return 1; }", [
    "-shared",
    "-Wl,-soname,libsecond.so",
    "-Wl,--no-as-needed",
    join(top, "env/libthird.so"),
  ]);
  workshop.link("run/libfirst.so", "int first(void) { return 1; }", [
    "-shared",
    "-Wl,-soname,libfirst.so",
    "-Wl,--disable-new-dtags,-rpath,${ORIGIN}/../deep",
    "-Wl,--no-as-needed",
    join(top, "deep/libsecond.so"),
  ]);
  const program = workshop.link("program", "int first(void); void _start(void) { first(); }", [
    "-Wl,--enable-new-dtags,-rpath,$ORIGIN/run",
    "-Wl,--allow-shlib-undefined",
    join(top, "run/libfirst.so"),
  ]);
  const environment = { LD_LIBRARY_PATH: `/absent:${join(top, "env")}` };
  const plan = libraries(program, { environment });
  assert.deepEqual(plan.missing, []);
  assert.deepEqual(
    plan.files.filter(({ path }) => path.startsWith(top)).map(({ path, role }) => [path.slice(top.length + 1), role]),
    [
      ["program", "executable"],
      ["run/libfirst.so", "library"],
      ["deep/libsecond.so", "library"],
      ["env/libthird.so", "library"],
    ],
  );
  assert.deepEqual(libraries(program).missing, [{ name: "libthird.so", neededBy: join(top, "deep/libsecond.so") }]);
  const report = fileReport(program, environment);
  assert.equal(report.coverage, "covered");
  assert.match(formatReport(report), /EVP_CipherInit_ex +address 0x[0-9a-f]+ file 0x[0-9a-f]+/);
});

test("inside another root, its own files are found, and none outside", () => {
  const root = join(workshop.directory, "root");
  for (const directory of ["bin", "lib", "etc"]) mkdirSync(join(root, directory), { recursive: true });
  workshop.link("root/lib/libinner.so", "int f(void) { return 1; }", ["-shared", "-Wl,-soname,libinner.so"]);
  workshop.link("root/bin/inner", "int f(void); void _start(void) { f(); }", [join(root, "lib/libinner.so")]);
  symlinkSync("/bin/inner", join(root, "bin", "link"));
  symlinkSync("/../../../../etc/passwd", join(root, "bin", "escape"));
  const { files } = libraries("/bin/link", { root });
  assert.deepEqual(
    files.map(({ path, hostPath }) => [path, hostPath]),
    [
      ["/bin/inner", join(root, "bin/inner")],
      ["/lib/libinner.so", join(root, "lib/libinner.so")],
    ],
  );
  assert.equal(resolveInRoot(root, "/bin/escape"), undefined);
  assert.equal(resolveInRoot(root, "/../../bin/inner")?.host, join(root, "bin/inner"));
});

test("links that go round end", () => {
  symlinkSync("round", join(workshop.directory, "round"));
  assert.equal(resolveInRoot("/", join(workshop.directory, "round")), undefined);
});

const scripts: readonly (readonly [line: string, expected: readonly string[]])[] = [
  ["#!/bin/sh\n", ["/bin/sh"]],
  ["#! /usr/bin/python3 -I\n", ["/usr/bin/python3"]],
  ["#!/usr/bin/env node\n", ["/a/node", "/b/node"]],
  ["#!/usr/bin/env -S A=b node --x\n", ["/a/node", "/b/node"]],
  ["#!/usr/bin/env -u HOME node\n", ["/a/node", "/b/node"]],
  ["#!/usr/bin/env\n", ["/usr/bin/env"]],
  ["no script", []],
  ["", []],
];
for (const [line, expected] of scripts) {
  test(`interpreter of ${JSON.stringify(line)}`, () =>
    assert.deepEqual(interpreterOf(new MemorySource(Buffer.from(line)), "/a:/b"), expected));
}

test("a script is followed to its interpreter's interpreter", () => {
  const inner = join(workshop.directory, "inner-script");
  const outer = join(workshop.directory, "outer-script");
  writeFileSync(inner, `#!${process.execPath}\n`);
  writeFileSync(outer, `#!${inner}\n`);
  const roles = libraries(outer).files.slice(0, 3);
  assert.deepEqual(
    roles.map(({ path, role }) => [path, role]),
    [
      [outer, "script"],
      [inner, "script"],
      [process.execPath, "executable"],
    ],
  );
});

test("a script that runs itself ends", () => {
  const path = join(workshop.directory, "self");
  writeFileSync(path, `#!${path}\n`);
  assert.deepEqual(
    libraries(path).files.map(({ role }) => role),
    ["script"],
  );
});

test("the loader's cache", () => {
  const cache = readFileSync("/etc/ld.so.cache");
  const machine = process.arch === "x64" ? "x86-64" : "arm64";
  const places = parseLibraryCache(cache, machine);
  assert.ok(places.get("libc.so.6")?.every((path) => path.endsWith("/libc.so.6")));
  const old = Buffer.concat([Buffer.from("ld.so-1.7.0\0\0\0\0\0"), cache]);
  assert.deepEqual(parseLibraryCache(old, machine), places);
});

test("a damaged cache gives what can be read", () => {
  const cache = readFileSync("/etc/ld.so.cache");
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: Math.min(cache.length, 4000) }), fc.nat(255)), { maxLength: 20 }),
      fc.integer({ min: 0, max: cache.length }),
      (changes, length) => {
        const damaged = Buffer.from(cache.subarray(0, length));
        for (const [at, value] of changes) damaged[at] = value;
        parseLibraryCache(damaged, "x86-64");
      },
    ),
    { numRuns: 200 },
  );
});

test("mapped files: each once, deleted ones too", () => {
  const text = [
    "55d0-55d1 r--p 00000000 fe:01 11 /usr/bin/a",
    "55d1-55d2 r-xp 00001000 fe:01 11 /usr/bin/a",
    "55d2-55d3 r-xp 00002000 fe:01 11 /usr/bin/a",
    "7f00-7f01 r-xp 00000000 fe:01 12                         /tmp/lib b.so (deleted)",
    "7f02-7f03 r-xp 00000000 00:00 0                          [vdso]",
    "7f04-7f05 rwxp 00000000 00:00 0 ",
  ].join("\n");
  assert.deepEqual(
    parseMaps(text, "/proc/1").map(({ path, name, deleted }) => [path, name, deleted]),
    [
      ["/proc/1/map_files/55d1-55d2", "/usr/bin/a", false],
      ["/proc/1/map_files/7f00-7f01", "/tmp/lib b.so", true],
    ],
  );
});

test("a running process is seen through its mappings, even when its file is gone", async () => {
  const copy = join(workshop.directory, "gone");
  cpSync(process.execPath, copy);
  const child = spawn(copy, ["-e", "process.stdout.write('up'); setInterval(() => {}, 1000)"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    await once(child.stdout, "data");
    rmSync(copy);
    const file = processFiles(child.pid ?? 0).find(({ name }) => name === copy);
    assert.equal(file?.deleted, true);
    assert.equal(new Discoverer().discover(file).stacks[0]?.stack, "openssl");
    assert.equal(processReport(child.pid ?? 0).coverage, "covered");
  } finally {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
});

test("a process that is gone is an error that says so", () => {
  assert.throws(() => processReport(0x7fffffff), { code: "process-gone" });
});

test("coverage", () => {
  const hooked = { stacks: [{} as never], tls: "known" } as const;
  const none = { stacks: [], tls: "none" } as const;
  const unknown = { stacks: [], tls: "unknown" } as const;
  assert.deepEqual(
    [coverageOf([hooked, none]), coverageOf([hooked, unknown]), coverageOf([unknown]), coverageOf([none])],
    ["covered", "partial", "uncovered", "none"],
  );
});

test("the system's libcrypto is known before any program opens it, in the cache and without one", () => {
  const root = join(workshop.directory, "musl");
  mkdirSync(join(root, "usr/lib"), { recursive: true });
  mkdirSync(join(root, "lib"), { recursive: true });
  workshop.link("musl/usr/lib/libcrypto.so.3", libcryptoLike, ["-shared"]);
  symlinkSync("../usr/lib/libcrypto.so.3", join(root, "lib", "libcrypto.so.3"));
  assert.deepEqual(
    installedCrypto({ root }).map(({ path, hostPath }) => [path, hostPath]),
    [["/usr/lib/libcrypto.so.3", join(root, "usr/lib/libcrypto.so.3")]],
  );
  for (const { hostPath } of installedCrypto()) assert.equal(new Discoverer().discover(hostPath).tls, "known");
});
