/*
 * The promise: however many files a workload brings, the agent remembers a bounded number of them and spends a bounded
 * part of its time on them, and says so of those that are left out; another workload's files are hooked as ever.
 */
import assert from "node:assert/strict";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { libcryptoLike, Workshop } from "../hooks/fixture.ts";
import { Examination } from "./examination.ts";
import { HookedFiles, type Prober } from "./hooked-files.ts";

const workshop = new Workshop();
after(() => workshop.close());
const library = workshop.link("libcrypto.so", libcryptoLike, ["-shared"]);
const tlsCode = workshop.link(
  "unknown.so",
  'const char *label(void) { return "c ap traffic"; } const char text[] = "c ap traffic";',
  ["-shared"],
);

/** Counts what stands, and attaches nothing. */
class Probes implements Prober {
  standing = 0;

  attachUprobe(): { close: () => void } {
    this.standing += 1;
    return { close: () => void (this.standing -= 1) };
  }

  hasProgram(): boolean {
    return true;
  }

  kept(): [] {
    return [];
  }

  hooked(): void {}
}

function copyOf(path: string, name: string): { path: string } {
  const copy = join(workshop.directory, name);
  copyFileSync(path, copy);
  return { path: copy };
}

test("one workload's files are hooked up to a number, another's all the same", () => {
  const probes = new Probes();
  const files = new HookedFiles(probes, { perShare: 4, hooked: 6, unhooked: 5 });
  const outcomes = Array.from({ length: 20 }, (_, i) => files.hook(copyOf(library, `many-${i}`), () => 1));
  assert.deepEqual(
    outcomes.map(({ tls }) => tls),
    [...Array(4).fill("hooked"), ...Array(16).fill("unknown")],
  );
  assert.match(outcomes[4]?.why ?? "", /4 files of this workload are hooked, and no more are/);
  assert.equal(files.hook(copyOf(library, "other"), () => 2).tls, "hooked");
  assert.equal(files.hookedCount, 5);
  const each = probes.standing / 5;
  // What a workload that has ended leaves makes room.
  files.release(1);
  for (let i = 0; i < 3; i++) assert.equal(files.hook(copyOf(library, `next-${i}`), () => 3).tls, "hooked");
  assert.equal(files.hookedCount, 6);
  assert.equal(probes.standing, 6 * each);
});

test("files without hooks are remembered up to a number", () => {
  const files = new HookedFiles(new Probes(), { perShare: 4, hooked: 6, unhooked: 5 });
  for (let i = 0; i < 50; i++) assert.equal(files.hook(copyOf(tlsCode, `tls-${i}`), () => 1).tls, "unknown");
  assert.equal(files.unhookedCount, 5);
});

test("a workload whose files take long is not waited for, until it has paid back", () => {
  let now = 0;
  const examination = new Examination({ atOnceMs: 100, part: 0.25 }, () => now);
  const spend = (workload: number, ms: number): void =>
    examination.charge(
      () => workload,
      () => void (now += ms),
    );
  spend(1, 60);
  assert.ok(examination.mayExamine(1));
  spend(1, 60); // 120, less the 15 that 60 ms have paid back
  assert.equal(examination.mayExamine(1), false);
  assert.ok(examination.mayExamine(2));
  now += 20;
  assert.equal(examination.mayExamine(1), false);
  now += 20;
  assert.ok(examination.mayExamine(1));
  for (let workload = 10; workload < 1000; workload++) {
    spend(workload, 1);
    now += 4;
  }
  assert.ok(examination.size <= 2, `${examination.size} are remembered`);
});

test("a file that there was no time for is said to be unprotected, and examined when there is", () => {
  let now = 0;
  const examination = new Examination({ atOnceMs: 1, part: 1 }, () => now++);
  const files = new HookedFiles(new Probes(), { perShare: 9, hooked: 9, unhooked: 9 }, examination);
  assert.equal(files.hook(copyOf(library, "first"), () => 1).tls, "hooked");
  examination.charge(
    () => 1,
    () => void (now += 500),
  );
  const second = copyOf(library, "second");
  const passed = files.hook(second, () => 1);
  assert.deepEqual([passed.tls, passed.heard], ["unknown", false]);
  assert.match(passed.why, /more new files than there is time to examine/);
  assert.equal(files.hook(copyOf(library, "another's"), () => 2).tls, "hooked");
  now += 1000;
  assert.equal(files.hook(second, () => 1).tls, "hooked");
});
