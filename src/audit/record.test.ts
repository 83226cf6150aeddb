import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { addressBytes } from "../policy/address.ts";
import type { KernelEvent } from "./event.ts";
import { attestNames, cipherNames, encodingNames, eventKinds, protocolNames, reasons, slotNames, stackNames, versionNames } from "./names.ts";
import { lostRecord, type RecordContext, recordOf, unprotectedRecord, wallTime } from "./record.ts";
import { recordText } from "./text.ts";

const at = new Date("2026-11-23T16:20:01.123Z");

const context: RecordContext = {
  secretName: (secret) => (secret === 3 ? "OPENAI_API_KEY" : undefined),
  workload: (id, { pid, command }) => (id === 7 ? { kind: "run", pid, command } : undefined),
  wallTime: (monotonic) => (assert.equal(monotonic, 123n), at),
};

const substituted: KernelEvent = {
  timeNs: 123n,
  kind: 1,
  workload: 7,
  secret: 3,
  process: 4711,
  command: "curl\0\0\0\0\0\0\0\0\0\0\0\0",
  address: addressBytes("203.0.113.7") as Uint8Array,
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
  const nothing: KernelEvent = {
    ...substituted,
    kind: 2,
    secret: 0,
    workload: 99,
    address: new Uint8Array(16),
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
  for (const kind of [0, eventKinds.attest, eventKinds.exec, 99]) {
    assert.equal(recordOf({ ...substituted, kind }, context), undefined);
  }
});

for (const [address, ipv4, text] of [
  ["203.0.113.7", 1, "203.0.113.7"],
  ["203.0.113.7", 0, "::ffff:203.0.113.7"],
  ["2001:db8::1", 0, "2001:db8::1"],
] as const) {
  test(`address ${text}`, () => {
    const event = { ...substituted, address: addressBytes(address) as Uint8Array, ipv4 };
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
  const record = recordOf({ ...substituted, command: "kloak:MPZVR3GHW", host: "a\x1b[31m.example\0".padEnd(256, "\0"), hostLength: 14 }, context);
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
  assert.equal(recordText(record), "2026-11-23T16:20:01.123Z unprotected Go 1.24, stripped; build with symbols by shop/web-1/web on n1");
});

test("a record as a line for a reader", () => {
  const line = (event: KernelEvent) => recordText(recordOf(event, context) as NonNullable<ReturnType<typeof recordOf>>);
  assert.equal(
    line(substituted),
    "2026-11-23T16:20:01.123Z substituted OPENAI_API_KEY → api.openai.com:443 (203.0.113.7, certificate) in header:authorization by curl[4711]",
  );
  assert.equal(
    line({ ...substituted, kind: 2, reason: 3, hostLength: 0, address: addressBytes("2001:db8::1") as Uint8Array, encoding: 2, ipv4: 0 }),
    "2026-11-23T16:20:01.123Z refused     no-sni OPENAI_API_KEY → [2001:db8::1]:443 in header:authorization (base64) by curl[4711]",
  );
});

test("wall time of now is now", () => {
  const before = Date.now() - 1;
  const now = wallTime(process.hrtime.bigint()).getTime();
  assert.ok(now >= before && now <= Date.now() + 1);
  assert.equal(wallTime(process.hrtime.bigint() - 3_600_000_000_000n).getTime() < before - 3_500_000, true);
});

const header = (name: string) => readFileSync(new URL(`../../bpf/types/${name}.h`, import.meta.url), "utf8");

/** Names and numbers of a C enum. */
function enumOf(text: string, name: string): Map<string, number> {
  const body = new RegExp(`enum ${name} \\{([^}]*)\\}`).exec(text)?.[1]?.replace(/\/\*.*?\*\//gs, "") ?? "";
  const members = new Map<string, number>();
  let next = 0;
  for (const entry of body.split(",").map((each) => each.trim()).filter((each) => each !== "")) {
    const [member = "", number] = entry.split("=").map((each) => each.trim());
    if (number !== undefined) next = Number(number);
    members.set(member, next++);
  }
  return members;
}

test("every reason of the kernel has its name here and its part in docs/reasons.md, and the other way round", () => {
  const kernel = [...enumOf(header("common"), "reason")].map(([member, number]) => [number, member.replace("reason_", "").replaceAll("_", "-")]);
  assert.deepEqual(kernel, [[0, "none"], ...reasons.slice(1).map((name, index) => [index + 1, name])]);
  const page = readFileSync(new URL("../../docs/reasons.md", import.meta.url), "utf8");
  const parts = page.split(/^### /m).slice(1);
  assert.deepEqual(parts.map((part) => part.split("\n")[0]).sort(), reasons.slice(1).sort());
  for (const part of parts) assert.match(part, /\nCause: [^]+\nRemedy: /, part.split("\n")[0]);
});

test("the other names are those of the kernel's headers", () => {
  const numbers = (file: string, name: string) => [...enumOf(header(file), name).values()].sort((a, b) => a - b);
  const keys = (names: object) => Object.keys(names).map(Number).sort((a, b) => a - b);
  assert.deepEqual(numbers("event", "event_kind"), Object.values(eventKinds));
  assert.deepEqual(numbers("common", "slot"), keys(slotNames));
  assert.deepEqual(numbers("common", "encoding"), keys(encodingNames));
  assert.deepEqual(numbers("common", "protocol"), keys(protocolNames));
  assert.deepEqual(numbers("common", "tls_version"), [0, ...keys(versionNames)]);
  assert.deepEqual(numbers("common", "cipher_algorithm"), [0, ...keys(cipherNames)]);
  assert.deepEqual(numbers("common", "tls_stack"), keys(stackNames));
  assert.deepEqual([...enumOf(header("secret"), "attest_mode").keys()], attestNames.map((name) => `attest_${name}`));
});
