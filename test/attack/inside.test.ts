/*
 * THREATS A: the secret cannot be read inside the workload, by any of its own means. Each test also shows that it would
 * have noticed: the same eyes find the secret where it may be. Needs root.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { clientStreams } from "../../src/demo/capture.ts";
import { decryptClient, parseKeyLog } from "../../src/demo/decrypt.ts";
import { disguises, type Needle, processesWith, type Scan, scanMemory } from "../../src/demo/memory.ts";
import type { ServedRequest } from "../../src/lab/server.ts";
import { suites } from "../../src/lab/suites.ts";
import { header } from "../support/requests.ts";
import { host, makeSecret, World } from "../support/world.ts";
import { audited, buildProgram, Machine, occurrences, program } from "./attack.ts";

const world = await World.create();
after(() => world.close());
const ca = world.authority.caFile;
const listener = "1.3 aes-256-gcm";
const url = world.url(listener);
const asRoot = ["--user", "root", "--quiet"];

const folder = (name: string) => mkdtempSync(join(world.directory, name));
const arrived = (requests: readonly ServedRequest[], value: string) =>
  requests.filter((request) => header(request, "authorization") === `Bearer ${value}`).length;

/** Records what comes out at the other end of the wire, until the returned function is called. */
async function outside(): Promise<() => Promise<Buffer>> {
  const file = join(folder("outside"), "capture.pcap");
  const tap = await Machine.start(world.namespace, "tap.py", [world.namespace.interface, file]);
  return async () => {
    await tap.close();
    return readFileSync(file);
  };
}

test("A1: the memory of a process, while and after it makes 1000 requests", async () => {
  const value = makeSecret(51);
  const mark = `ATTACK_MARK=${createHash("sha256").update(value).digest("hex")}`;
  const run = world.start({
    secrets: { SECRET: { value, hosts: host } },
    command: ["env", mark, "python3", program("waiting.py"), ca, url, "1000"],
  });
  const needles = disguises(value);
  const scans: number[] = [];
  let bytes = 0;
  const scan = () => {
    const processes = processesWith(mark).filter(({ environment }) =>
      environment.some((line) => line.startsWith("SECRET=")),
    );
    for (const { pid, environment } of processes) {
      const placeholder = environment.find((line) => line.startsWith("SECRET="))?.slice(7) ?? "";
      const result = scanIfThere(pid, [...needles, { name: "placeholder", bytes: Buffer.from(placeholder) }]);
      if (result === null) continue;
      assert.deepEqual(
        { ...result.found, placeholder: 0 },
        { ...Object.fromEntries(needles.map(({ name }) => [name, 0])), placeholder: 0 },
      );
      scans.push(result.found["placeholder"] ?? 0);
      bytes += result.bytes;
    }
  };
  const held = world.server.held(1, 60_000);
  const state = { over: false };
  const end = () => {
    state.over = true;
  };
  held.then(end, end);
  while (!state.over) {
    scan();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await held;
  scan();
  world.server.release();
  const outcome = await run.ended;
  const { requests, faults } = await world.server.take();
  assert.deepEqual({ status: outcome.status, stderr: outcome.stderr, faults }, { status: 0, stderr: "", faults: [] });
  assert.equal(arrived(requests, value), 1001);
  assert.deepEqual(audited(outcome.audit), { "substituted SECRET": 1001 });
  assert.ok(bytes > 0 && scans.some((placeholders) => placeholders > 0), "the scan finds what is there");
});

for (const user of ["root", "nobody"]) {
  test(`A1: a command that runs as ${user} looks into every process and file that it may read`, async () => {
    const value = makeSecret(51);
    const what = { SECRET_SHA256: createHash("sha256").update(value).digest("hex"), SECRET_LENGTH: "51" };
    const outcome = await world.kloak({
      secrets: { SECRET: { value, hosts: host } },
      command: ["python3", program("pry.py")],
      options: ["--user", user, "--quiet"],
      env: what,
    });
    assert.deepEqual({ status: outcome.status, stderr: outcome.stderr }, { status: 0, stderr: "" });
    assert.equal(outcome.stdout, "done with kloak in sight\n");
    // It would be found: without kloak the same program finds it where it is.
    const bare = execFileSync("python3", [program("pry.py")], {
      env: { ...process.env, ...what, SHOWN: value },
      encoding: "utf8",
    });
    assert.match(bare, /^own environment$/m);
  });
}

test("A2: verbose log and system calls of a client", async () => {
  const value = makeSecret(51);
  const directory = folder("strace");
  const script = `strace -f -s 1000000 -o "$1/strace" curl -sS -v --trace-ascii "$1/trace" --cacert "$2" -H "Authorization: Bearer $SECRET" -H "X-Plain: 1" "$3/a"; echo "$SECRET"`;
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: host } },
    command: ["sh", "-c", script, "sh", directory, ca, url],
    options: asRoot,
  });
  const { requests } = await world.server.take();
  assert.equal(arrived(requests, value), 1, outcome.stderr);
  // curl's trace is cut into lines of 64 bytes.
  const unfold = (text: string) => text.replaceAll(/\n[0-9a-f]{4}: /g, "");
  const logs = [
    outcome.stdout,
    ...readdirSync(directory).map((file) => unfold(readFileSync(join(directory, file), "latin1"))),
  ];
  const placeholder = outcome.stdout.trim().split("\n").at(-1) ?? "";
  assert.deepEqual(
    logs.map((log) => occurrences(log, value)),
    logs.map(() => 0),
  );
  for (const [at, log] of logs.entries())
    assert.ok(log.includes(placeholder), `log ${at} holds no placeholder: ${log.slice(0, 500)}`);
});

for (const mirror of [false, true]) {
  const name = mirror
    ? "A6: a filter in the namespace that mirrors what leaves"
    : "A3: a capture in the namespace, decrypted";
  test(name, async () => {
    const value = makeSecret(51);
    const directory = folder("sniff");
    const keyLog = join(directory, "keys");
    const end = await outside();
    const outcome = await world.kloak({
      secrets: { SECRET: { value, hosts: host } },
      command: ["python3", program("sniff.py"), ca, url, keyLog, directory, ...(mirror ? ["mirror"] : [])],
      options: asRoot,
    });
    const after = await end();
    const { requests } = await world.server.take();
    assert.deepEqual({ status: outcome.status, stderr: outcome.stderr }, { status: 0, stderr: "" });
    assert.equal(arrived(requests, value), 5);
    const keys = parseKeyLog(readFileSync(keyLog, "utf8"));
    const open = (pcap: Buffer) =>
      clientStreams(pcap, world.server.port(listener)).flatMap((stream) => decryptClient(stream, keys) ?? []);
    const captures = readdirSync(directory).filter((file) => file.endsWith(".pcap"));
    assert.ok(captures.includes("eth0.pcap"));
    assert.equal(captures.includes("spy.pcap"), mirror);
    for (const file of captures.filter((capture) => capture !== "lo.pcap")) {
      const [decrypted, ...more] = open(readFileSync(join(directory, file)));
      assert.ok(decrypted && more.length === 0, file);
      assert.deepEqual(
        { damaged: decrypted.damaged, secrets: occurrences(decrypted.text, value) },
        { damaged: 0, secrets: 0 },
      );
      assert.equal(decrypted.text.split("kloak:").length - 1, 5, file);
    }
    // The same keys open what has left, and find it there.
    const [left] = open(after);
    assert.deepEqual(
      { damaged: left?.damaged, times: (left?.text.split(value).length ?? 0) - 1 },
      { damaged: 0, times: 5 },
    );
  });
}

for (const [how, threat] of [
  ["timestamps", "A4: the error queue of a socket with time stamps"],
  ["repair", "A5: the send queue in repair mode, after a retransmission"],
  ["zerocopy", "A5: pages that are sent without a copy"],
] as const) {
  test(threat, async () => {
    const value = makeSecret(51);
    const end = await outside();
    const outcome = await world.kloak({
      secrets: { SECRET: { value, hosts: host } },
      command: ["python3", program("queues.py"), how, ca, url],
      options: asRoot,
    });
    const after = await end();
    const { requests, faults } = await world.server.take();
    assert.deepEqual({ status: outcome.status, stderr: outcome.stderr, faults }, { status: 0, stderr: "", faults: [] });
    const { sent, seen } = JSON.parse(outcome.stdout) as { sent: string; seen: string[] };
    assert.ok(seen.length > 0);
    for (const copy of seen) assert.ok(copy.includes(sent), `${how}: another record than the one that was sealed`);
    // Pages that the workload can still change take no substitution; all else is replaced, and looks different outside.
    const replaced = how !== "zerocopy";
    assert.equal(arrived(requests, value), replaced ? 2 : 1);
    const left = clientStreams(after, world.server.port(listener)).some((stream) =>
      stream.includes(Buffer.from(sent, "hex")),
    );
    assert.equal(left, !replaced);
    assert.deepEqual(
      audited(outcome.audit),
      replaced ? { "substituted SECRET": 2 } : { "substituted SECRET": 1, "refused unproven-flow SECRET": 1 },
    );
  });
}

test("A7: a library before libssl, and copies of libssl and libcrypto of the workload's own", async () => {
  const value = makeSecret(51);
  const preload = buildProgram("preload", ["-shared", "-fPIC", "-ldl"]);
  const directory = folder("trojan");
  const own = join(directory, "lib");
  mkdirSync(own);
  for (const library of ["libssl.so.3", "libcrypto.so.3"]) {
    const file = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
      .map((where) => join(where, library))
      .find((path) => existsSync(path));
    copyFileSync(realpathSync(file ?? library), join(own, library));
  }
  const log = join(directory, "log");
  const script = `LD_LIBRARY_PATH="$1" LD_PRELOAD="$2" PRELOAD_LOG="$3" curl -sS -o /dev/null --cacert "$4" -H "Authorization: Bearer $SECRET" "$5/a" && echo "$SECRET"`;
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: host } },
    command: ["sh", "-c", script, "sh", own, preload, log, ca, url],
    options: asRoot,
  });
  const { requests } = await world.server.take();
  assert.deepEqual({ status: outcome.status, stderr: outcome.stderr }, { status: 0, stderr: "" });
  assert.equal(arrived(requests, value), 1);
  const seen = readFileSync(log, "latin1");
  assert.equal(occurrences(seen, value), 0);
  assert.ok(seen.includes(outcome.stdout.trim()), "the library saw the placeholder");
});

const cuts = [
  { name: "one byte a write", size: 1, segment: 0, setUp: "true" },
  { name: "segments of 88 bytes", size: 65536, segment: 88, setUp: "true" },
  {
    name: "an MTU of 576 and no offloads",
    size: 7,
    segment: 0,
    setUp: "ip link set dev eth0 mtu 576 && ethtool -K eth0 tx off tso off gso off sg off >/dev/null",
  },
];
for (const { name, size, segment, setUp } of cuts) {
  test(`A8: ${name}: never both versions of a byte`, async () => {
    const value = makeSecret(51);
    const end = await outside();
    const urls = suites.map((suite) => world.url(suite.name));
    const script = `${setUp} && for url in ${urls.join(" ")}; do python3 ${program("pieces.py")} ${ca} $url ${size} ${segment} || exit; done`;
    const outcome = await world.kloak({
      secrets: { SECRET: { value, hosts: host } },
      command: ["sh", "-c", script],
      options: asRoot,
    });
    const pcap = await end();
    const { requests, faults } = await world.server.take();
    assert.deepEqual({ status: outcome.status, stderr: outcome.stderr, faults }, { status: 0, stderr: "", faults: [] });
    assert.equal(requests.length, 3 * suites.length);
    assert.equal(arrived(requests, value), 3 * suites.length, JSON.stringify(audited(outcome.audit)));
    assert.deepEqual(audited(outcome.audit), { "substituted SECRET": 3 * suites.length });
    assert.deepEqual(contradictions(pcap), []);
  });
}

/** null if the process has ended meanwhile. */
function scanIfThere(pid: number, needles: readonly Needle[]): Scan | null {
  try {
    return scanMemory(pid, needles);
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ESRCH")) return null;
    throw error;
  }
}

/** Bytes of a TCP connection that left in two versions. IPv4 over Ethernet. */
function contradictions(pcap: Buffer): string[] {
  const streams = new Map<string, Map<number, number>>();
  const found: string[] = [];
  for (let at = 24; at + 16 <= pcap.length; ) {
    const length = pcap.readUInt32LE(at + 8);
    const frame = pcap.subarray(at + 16, at + 16 + length);
    at += 16 + length;
    if (frame.length < 54 || frame.readUInt16BE(12) !== 0x0800 || frame.readUInt8(23) !== 6) continue;
    const ip = frame.subarray(14, 14 + frame.readUInt16BE(16));
    const tcp = ip.subarray((ip.readUInt8(0) & 15) * 4);
    const flow = `${ip.subarray(12, 20).toString("hex")} ${tcp.subarray(0, 4).toString("hex")}`;
    const bytes = streams.get(flow) ?? new Map<number, number>();
    streams.set(flow, bytes);
    const payload = tcp.subarray((tcp.readUInt8(12) >> 4) * 4);
    for (const [i, byte] of payload.entries()) {
      const sequence = (tcp.readUInt32BE(4) + i) >>> 0;
      const before = bytes.get(sequence);
      if (before !== undefined && before !== byte) found.push(`${flow} ${sequence}`);
      bytes.set(sequence, byte);
    }
  }
  assert.ok(streams.size > 0, "the capture holds TCP connections");
  return found;
}
