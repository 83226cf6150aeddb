import assert from "node:assert/strict";
import type { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { auditLines } from "./cli.ts";
import { parseFilter } from "./filter.ts";
import { type AuditRecord, lostRecord, unprotectedRecord } from "./record.ts";
import { readRecords } from "./reader.ts";
import { AuditWriter } from "./writer.ts";

const directory = mkdtempSync(join(tmpdir(), "kloak-audit-"));
after(() => rmSync(directory, { recursive: true }));
let files = 0;
const newFile = () => join(directory, `audit-${++files}.jsonl`);

const at = new Date("2026-11-23T16:20:01.123Z");
const numbered = (count: number): AuditRecord => lostRecord(at, count);
const line = (record: AuditRecord) => `${JSON.stringify(record)}\n`;
const counts = (file: string) =>
  readFileSync(file, "utf8")
    .trimEnd()
    .split("\n")
    .map((text) => JSON.parse(text).count);

test("records stand in the file in order, one a line, when write returns", async () => {
  const file = newFile();
  writeFileSync(file, line(numbered(0)));
  const writer = new AuditWriter(file);
  for (let count = 1; count <= 100; count++) {
    writer.write(numbered(count));
    assert.equal(counts(file).at(-1), count);
  }
  await writer.close();
  assert.deepEqual(
    counts(file),
    Array.from({ length: 101 }, (_, index) => index),
  );
});

test("a new file may be read by its owner only", async () => {
  const file = newFile();
  await new AuditWriter(file).close();
  assert.equal(statSync(file).mode & 0o777, 0o600);
});

test("a process that dies right after writing loses nothing, in a file and in a pipe", () => {
  const file = newFile();
  const program = `
    const { AuditWriter } = await import(${JSON.stringify(new URL("./writer.ts", import.meta.url).href)});
    const { lostRecord } = await import(${JSON.stringify(new URL("./record.ts", import.meta.url).href)});
    const writer = new AuditWriter(process.argv[1]);
    for (let count = 0; count < 2000; count++) writer.write(lostRecord(new Date(0), count));
    process.kill(process.pid, "SIGKILL");`;
  const run = (target: string) =>
    spawnSync(process.execPath, [...process.execArgv, "--input-type=module", "-e", program, target], {
      encoding: "utf8",
      maxBuffer: 1 << 24,
    });
  assert.equal(run(file).signal, "SIGKILL");
  const expected = Array.from({ length: 2000 }, (_, index) => index);
  assert.deepEqual(counts(file), expected);
  const { stderr } = run("-");
  assert.deepEqual(
    stderr
      .trimEnd()
      .split("\n")
      .map((text) => JSON.parse(text).count),
    expected,
  );
});

test("a file that cannot be opened is an error that names it", () => {
  assert.throws(
    () => new AuditWriter(join(directory, "no", "file")),
    /audit file .*no\/file cannot be opened \(ENOENT\); check/,
  );
});

test("a pipe that takes a few bytes at a time, or none for a while, gets every line whole and in order", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.option(fc.nat({ max: 300 })), { maxLength: 20 }), async (takes) => {
      let taken = "";
      const write = (_: number, bytes: Buffer) => {
        const take = takes.length > 0 ? takes.shift() : bytes.length;
        if (take === null || take === undefined) throw Object.assign(new Error("full"), { code: "EAGAIN" });
        const part = bytes.subarray(0, take);
        taken += part.toString();
        return part.length;
      };
      const writer = new AuditWriter("-", { write });
      const records = Array.from({ length: 8 }, (_, index) => numbered(index));
      for (const record of records) writer.write(record);
      await writer.close();
      assert.equal(taken, records.map(line).join(""));
    }),
    { numRuns: 30 },
  );
});

test("what could not be written leaves a record of how much, and somebody is told once", async () => {
  let full = false;
  let taken = "";
  const errors: string[] = [];
  const writer = new AuditWriter("-", {
    now: () => at,
    onError: ({ message }) => errors.push(message),
    write: (_, bytes) => {
      if (full) throw Object.assign(new Error("full"), { code: "ENOSPC" });
      taken += bytes.toString();
      return bytes.length;
    },
  });
  writer.write(numbered(1));
  full = true;
  writer.write(numbered(2));
  writer.write(numbered(3));
  full = false;
  writer.write(numbered(4));
  await writer.close();
  assert.equal(taken, [numbered(1), lostRecord(at, 2), numbered(4)].map(line).join(""));
  assert.equal(errors.length, 1);
  assert.match(errors[0] ?? "", /records cannot be written \(ENOSPC\); make room/);
});

async function collect(records: AsyncIterable<AuditRecord>): Promise<(number | undefined)[]> {
  const result: (number | undefined)[] = [];
  for await (const { count } of records) result.push(count);
  return result;
}

test("a trail is read in order; lines that are no records are skipped", async () => {
  const file = newFile();
  writeFileSync(
    file,
    `noise\n${line(numbered(1))}{"a":1}\n{broken\n\n${line(numbered(2))}${line(numbered(3)).slice(0, 20)}`,
  );
  assert.deepEqual(await collect(readRecords(file)), [1, 2]);
  await assert.rejects(collect(readRecords(join(directory, "none"))), /cannot be read \(ENOENT\); name the file/);
});

test("following sees what is appended, cut into pieces, after the file was replaced, and after it was cut", async () => {
  const file = newFile();
  writeFileSync(file, line(numbered(1)));
  const controller = new AbortController();
  const deadline = AbortSignal.timeout(10_000);
  const signal = AbortSignal.any([controller.signal, deadline]);
  const seen: (number | undefined)[] = [];
  const steps: (() => void)[] = [
    () => appendFileSync(file, line(numbered(2)).slice(0, 30)),
    () => {
      renameSync(file, `${file}.1`);
      writeFileSync(file, line(numbered(333)));
    },
    () => {
      truncateSync(file);
      appendFileSync(file, line(numbered(4)));
    },
    () => controller.abort(),
  ];
  for await (const { count } of readRecords(file, { follow: true, signal })) {
    seen.push(count);
    if (count === 1) {
      steps.shift()?.();
      appendFileSync(file, line(numbered(2)).slice(30));
    } else steps.shift()?.();
  }
  assert.deepEqual(seen, [1, 2, 333, 4]);
});

const podRecord = unprotectedRecord(
  at,
  { kind: "pod", namespace: "shop", name: "web-1", uid: "u-1", container: null, node: "n" },
  null,
  "x",
);
const runRecord: AuditRecord = {
  ...podRecord,
  outcome: "refused",
  secret: "shop/stripe/token",
  workload: { kind: "run", pid: 4711, command: "curl" },
};

const filters: readonly (readonly [Parameters<typeof parseFilter>[0], pod: boolean, run: boolean])[] = [
  [{}, true, true],
  [{ secret: "shop/stripe/token" }, false, true],
  [{ secret: "shop/*" }, false, true],
  [{ secret: "*/token" }, false, true],
  [{ secret: "s*t*n" }, false, true],
  [{ secret: "stripe" }, false, false],
  [{ workload: "shop/web-1" }, true, false],
  [{ workload: "web-*" }, true, false],
  [{ workload: "u-1" }, true, false],
  [{ workload: "curl" }, false, true],
  [{ workload: "4711" }, false, true],
  [{ outcome: "refused" }, false, true],
  [{ outcome: "refused,unprotected" }, true, true],
  [{ since: "10m" }, true, true],
  [{ since: "30s" }, false, false],
  [{ since: "2026-11-23T16:20:00Z" }, true, true],
  [{ since: "2026-11-23T16:21:00Z" }, false, false],
  [{ outcome: "refused", workload: "curl", since: "1h" }, false, true],
];

for (const [input, pod, run] of filters) {
  test(`filter ${JSON.stringify(input)}`, () => {
    const filter = parseFilter(input, new Date(at.getTime() + 60_000));
    assert.equal(filter(podRecord), pod);
    assert.equal(filter(runRecord), run);
  });
}

test("filters that mean nothing are errors", () => {
  assert.throws(() => parseFilter({ since: "yesterday" }), /--since "yesterday" is no time; use 90s/);
  assert.throws(() => parseFilter({ outcome: "denied" }), /--outcome "denied" is unknown; use substituted/);
});

test("a star matches as a regular expression would", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", "*"), maxLength: 8 });
  fc.assert(
    fc.property(
      text,
      text.map((each) => each.replaceAll("*", "")),
      (pattern, secret) => {
        const expected = new RegExp(`^${pattern.replaceAll("*", ".*")}$`).test(secret);
        assert.equal(parseFilter({ secret: pattern })({ ...runRecord, secret }), expected);
      },
    ),
    { numRuns: 2000 },
  );
});

test("kloak audit prints lines for readers, or the records", async () => {
  const file = newFile();
  writeFileSync(file, line(podRecord) + line(runRecord));
  const lines: string[] = [];
  for await (const each of auditLines({ file, outcome: "refused", json: true })) lines.push(each);
  assert.deepEqual(
    lines.map((each) => JSON.parse(each)),
    [runRecord],
  );
  for await (const each of auditLines({ file, workload: "web-1" })) lines.push(each);
  assert.match(lines[1] ?? "", /^2026-11-23T16:20:01\.123Z unprotected x by shop\/web-1 on n$/);
});

test("a trail may come through a pipe", () => {
  const program = `
    const { auditLines } = await import(${JSON.stringify(new URL("./cli.ts", import.meta.url).href)});
    for await (const line of auditLines({ file: "/dev/stdin", json: true })) console.log(line);`;
  const input = Array.from({ length: 1000 }, (_, index) => line(numbered(index))).join("");
  const shell = `cat | "$0" --input-type=module -e "$1"`; // a pipe, where Node would give a socket
  const { stdout, stderr } = spawnSync("sh", ["-c", shell, process.execPath, program], { input, encoding: "utf8" });
  assert.equal(stdout, input, stderr);
});

test("half a line of a writer that was killed spoils no record", async () => {
  const file = newFile();
  writeFileSync(file, line(numbered(1)) + line(numbered(2)).slice(0, 30));
  const writer = new AuditWriter(file);
  writer.write(numbered(3));
  await writer.close();
  const found: number[] = [];
  for await (const { count = 0 } of readRecords(file)) found.push(count);
  assert.deepEqual(found, [1, 3]);
});
