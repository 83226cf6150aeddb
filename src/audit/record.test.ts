import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  cipherAlgorithmNames,
  encodingNames as kernelEncodings,
  type Event,
  eventKind,
  protocolNames as kernelProtocols,
  reasonNames,
  slotNames as kernelSlots,
  tlsStackNames,
  tlsVersionNames,
} from "../dataplane/types.gen.ts";
import { addressBytes } from "../policy/address.ts";
import {
  cipherName,
  encodingNames,
  protocolNames,
  reasonName,
  reasons,
  slotNames,
  stackName,
  versionNames,
} from "./names.ts";
import { lostRecord, type RecordContext, recordOf, unprotectedRecord, wallTime } from "./record.ts";
import { recordText } from "./text.ts";

const at = new Date("2026-11-23T16:20:01.123Z");

const context: RecordContext = {
  secretName: (secret) => (secret === 3 ? "OPENAI_API_KEY" : undefined),
  workload: (id, { pid, command }) => (id === 7 ? { kind: "run", pid, command } : undefined),
  wallTime: (monotonic) => (assert.equal(monotonic, 123n), at),
};

const substituted: Event = {
  timeNs: 123n,
  kind: 1,
  workload: 7,
  secret: 3,
  process: 4711,
  command: "curl\0\0\0\0\0\0\0\0\0\0\0\0",
  address: addressBytes("203.0.113.7") as Buffer,
  port: 443,
  reason: 0,
  slot: 1,
  encoding: 0,
  protocol: 1,
  version: 3,
  algorithm: 2,
  stack: 1,
  attest: 0,
  ipv4: 1,
  hostLength: 14,
  header: { length: 13, text: "authorization".padEnd(39, "\0") },
  host: "api.openai.com".padEnd(256, "\0"),
};

test("a substitution is recorded as the documentation says", () => {
  assert.equal(
    JSON.stringify(recordOf(substituted, context)),
    '{"time":"2026-11-23T16:20:01.123Z","outcome":"substituted","reason":null,"secret":"OPENAI_API_KEY","workload":{"kind":"run","pid":4711,"command":"curl"},' +
      '"destination":{"host":"api.openai.com","address":"203.0.113.7","port":443,"attestation":"certificate"},' +
      '"slot":"header:authorization","encoding":"raw","protocol":"http/1.1","tls":{"version":"1.3","cipher":"aes-256-gcm","stack":"openssl"}}',
  );
});

test("a refusal has its reason and claims no attestation", () => {
  const record = recordOf({ ...substituted, kind: 2, reason: 1 }, context);
  assert.equal(record?.outcome, "refused");
  assert.equal(record?.reason, "host-not-allowed");
  assert.equal(record?.destination.attestation, null);
});

test("what is not known is null", () => {
  const nothing: Event = {
    ...substituted,
    kind: 2,
    secret: 0,
    workload: 99,
    address: Buffer.alloc(16),
    port: 0,
    hostLength: 0,
    reason: 14,
    slot: 0,
    protocol: 0,
    version: 0,
    algorithm: 0,
    stack: 0,
  };
  const record = recordOf(nothing, context);
  assert.deepEqual(
    { ...record, time: null, outcome: null },
    {
      time: null,
      outcome: null,
      reason: "unreadable-memory",
      secret: null,
      workload: null,
      destination: { host: null, address: null, port: null, attestation: null },
      slot: null,
      encoding: null,
      protocol: null,
      tls: { version: null, cipher: null, stack: null },
    },
  );
  assert.equal(recordOf({ ...nothing, secret: 4 }, context)?.secret, null);
});

test("events of other kinds are no records", () => {
  for (const kind of [0, eventKind.attest, eventKind.exec, 99]) {
    assert.equal(recordOf({ ...substituted, kind }, context), undefined);
  }
});

for (const [address, ipv4, text] of [
  ["203.0.113.7", 1, "203.0.113.7"],
  ["203.0.113.7", 0, "::ffff:203.0.113.7"],
  ["2001:db8::1", 0, "2001:db8::1"],
] as const) {
  test(`address ${text}`, () => {
    const event = { ...substituted, address: addressBytes(address) as Buffer, ipv4 };
    assert.equal(recordOf(event, context)?.destination.address, text);
  });
}

for (const [slot, name, text] of [
  [1, "x-api-key", "header:x-api-key"],
  [2, "cookie", "header:cookie"],
  [1, "", "header"],
  [4, "", "query"],
  [8, "", "path"],
  [16, "", "body"],
] as const) {
  test(`slot ${text}`, () => {
    const event = { ...substituted, slot, header: { length: name.length, text: name.padEnd(39, "\0") } };
    assert.equal(recordOf(event, context)?.slot, text);
  });
}

test("what a workload chose to be called shows no placeholder and no control characters", () => {
  const record = recordOf(
    { ...substituted, command: "kloak:MPZVR3GHW", host: "a\x1b[31m.example\0".padEnd(256, "\0"), hostLength: 14 },
    context,
  );
  assert.ok(record?.workload?.kind === "run");
  assert.equal(record.workload.command, "kloak:[redacted]");
  assert.equal(record.destination.host, "a?[31m.example");
});

test("holes and unprotected workloads are records too", () => {
  assert.deepEqual({ ...lostRecord(at, 12) }, { ...lostRecord(at, 0), count: 12, outcome: "lost" });
  const pod = { kind: "pod", namespace: "shop", name: "web-1", uid: "u", container: "web", node: "n1" } as const;
  const record = unprotectedRecord(at, pod, "go", "Go 1.24, stripped; build with symbols");
  assert.equal(record.outcome, "unprotected");
  assert.equal(record.tls.stack, "go");
  assert.equal(
    recordText(record),
    "2026-11-23T16:20:01.123Z unprotected Go 1.24, stripped; build with symbols by shop/web-1/web on n1",
  );
});

test("a record as a line for a reader", () => {
  const line = (event: Event) => recordText(recordOf(event, context) as NonNullable<ReturnType<typeof recordOf>>);
  assert.equal(
    line(substituted),
    "2026-11-23T16:20:01.123Z substituted OPENAI_API_KEY → api.openai.com:443 (203.0.113.7, certificate) in header:authorization by curl[4711]",
  );
  assert.equal(
    line({
      ...substituted,
      kind: 2,
      reason: 3,
      hostLength: 0,
      address: addressBytes("2001:db8::1") as Buffer,
      encoding: 2,
      ipv4: 0,
    }),
    "2026-11-23T16:20:01.123Z refused     no-sni OPENAI_API_KEY → [2001:db8::1]:443 in header:authorization (base64) by curl[4711]",
  );
});

test("wall time of now is now", () => {
  const before = Date.now() - 1;
  const now = wallTime(process.hrtime.bigint()).getTime();
  assert.ok(now >= before && now <= Date.now() + 1);
  assert.equal(wallTime(process.hrtime.bigint() - 3_600_000_000_000n).getTime() < before - 3_500_000, true);
});

test("every reason of the kernel has its name here and its part in docs/reasons.md, and the other way round", () => {
  const kernel = Object.keys(reasonNames).map(Number);
  assert.equal(reasonName(0), null);
  assert.deepEqual(
    kernel.slice(1).map(reasonName),
    kernel.slice(1).map((number) => reasonNames[number]),
  );
  assert.equal(kernel.length - 1, reasons.length);
  const page = readFileSync(new URL("../../docs/reasons.md", import.meta.url), "utf8");
  const parts = page.split(/^### /m).slice(1);
  assert.deepEqual(new Set(parts.map((part) => part.split("\n")[0])), new Set(reasons));
  assert.equal(parts.length, reasons.length);
  for (const part of parts) assert.match(part, /\nCause: [^]+\nRemedy: /, part.split("\n")[0]);
});

test("every other number of the kernel that a record shows has a name", () => {
  const named = (
    numbers: object,
    nameOf: (number: number) => string | null | undefined,
    nameless: readonly number[],
  ) => {
    const missing = Object.keys(numbers)
      .map(Number)
      .filter((number) => (nameOf(number) ?? null) === null);
    assert.deepEqual(missing, nameless);
  };
  named(kernelSlots, (number) => slotNames[number], []);
  named(kernelEncodings, (number) => encodingNames[number], []);
  named(kernelProtocols, (number) => protocolNames[number], [0]);
  named(tlsVersionNames, (number) => versionNames[number], [0]);
  named(cipherAlgorithmNames, cipherName, [0]);
  named(tlsStackNames, stackName, [0]);
});
