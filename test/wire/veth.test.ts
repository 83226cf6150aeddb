/**
 * Real packets: a workload in a namespace writes a stream with a real socket, another machine reads it. What the cipher
 * side would say is said beforehand. The kernel cuts, merges, offloads and repeats as it likes.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { after, before, beforeEach, test } from "node:test";
import { runSync } from "../../src/lab/command.ts";
import type { Namespace } from "../../src/lab/namespace.ts";
import { createNamespace } from "../../src/lab/namespace.ts";
import * as tls from "./client-hello.ts";
import type { Sealed } from "./cipher.ts";
import { host, Lab, port, secret, workload } from "./lab.ts";
import * as rows from "./rows.ts";

const deadline = 30_000;
/** Of the server. */
const addresses = { IPv4: "192.0.2.1", IPv6: "2001:db8::1" } as const;
const lab = new Lab({ requireSocket: true });
let pod: Namespace;
let server: Namespace;
let ifindex: number;

before(() => {
  pod = createNamespace();
  server = createNamespace();
  /* A wire of their own: nothing hangs on how this machine forwards. */
  runSync("ip", [
    "-n",
    server.name,
    "link",
    "add",
    "wire0",
    "type",
    "veth",
    "peer",
    "name",
    "wire0",
    "netns",
    pod.name,
  ]);
  for (const [{ name }, end] of [
    [server, 1],
    [pod, 2],
  ] as const) {
    runSync("ip", ["-n", name, "link", "set", "wire0", "up"]);
    runSync("ip", ["-n", name, "address", "add", `192.0.2.${end}/24`, "dev", "wire0"]);
    runSync("ip", ["-n", name, "address", "add", `2001:db8::${end}/64`, "dev", "wire0", "nodad"]);
  }
  const [link] = JSON.parse(runSync("ip", ["-n", server.name, "-json", "link", "show", "wire0"])) as {
    ifindex: number;
  }[];
  ifindex = link?.ifindex ?? 0;
  lab.kernel.attach(ifindex, server.path);
});
beforeEach(async () => {
  await lab.reset();
  const key = Buffer.alloc(4);
  key.writeUInt32LE(ifindex);
  lab.kernel.table("interfaces").set(key, rows.interfaceRow(workload));
});
after(() => {
  pod?.close();
  server?.close();
  lab.kernel.close();
});

const ownSender = [process.execPath, new URL("sender.ts", import.meta.url).pathname];

/** Sends the writes from the workload to the server; what arrived there. */
async function transfer(
  address: string,
  writes: readonly Buffer[],
  noDelay = true,
  by: readonly string[] = ownSender,
): Promise<Buffer> {
  const script = `
    const server = require("node:net").createServer({ allowHalfOpen: false }, (socket) => {
      socket.pipe(process.stdout);
      socket.on("close", () => server.close());
    });
    server.listen(${port}, ${JSON.stringify(address)}, () => process.stderr.write("listening\\n"));
  `;
  const signal = AbortSignal.timeout(deadline);
  const [command = "", ...args] = server.within([process.execPath, "-e", script]);
  const reader = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], signal });
  const arrived: Buffer[] = [];
  reader.stdout.on("data", (bytes: Buffer) => arrived.push(bytes));
  const closed = new Promise<void>((resolve, reject) => {
    reader.on("close", () => resolve());
    reader.on("error", reject);
  });
  await Promise.race([closed, new Promise((resolve) => reader.stderr.once("data", resolve))]);
  const [program = "", ...rest] = pod.within(by);
  const sender = spawn(program, rest, { stdio: ["pipe", "ignore", "pipe"], signal });
  sender.on("error", () => undefined);
  sender.stdin.end(
    JSON.stringify({ host: address, port, noDelay, writes: writes.map((bytes) => bytes.toString("base64")) }),
  );
  const [complaints] = await Promise.all([text(sender.stderr), closed]);
  assert.equal(complaints, "");
  return Buffer.concat(arrived);
}

interface Stream {
  readonly writes: Buffer[];
  readonly expected: Buffer;
  readonly requests: number;
}

/** A TLS 1.3 client's stream: requests with placeholders among bodies, `bytes` in all. */
function stream(bytes: number, bodyBytes: number): Stream {
  const finished = lab.cipher().seal({ type: 22 });
  const cipher = lab.cipher();
  const records: Sealed[] = [];
  let size = 0;
  let requests = 0;
  for (let i = 0; size < bytes && i < 500; i++) {
    const request = i % 7 === 0 && requests < 14;
    const record = request
      ? cipher.seal({ length: 300 + i, host, edits: [{ secret, offset: 40 + (i % 5), length: 57 }] })
      : cipher.seal({ length: bodyBytes });
    if (request) requests++;
    records.push(record);
    size += record.sent.length;
  }
  const opening = [tls.record(22, tls.clientHello([tls.serverName(host), tls.largeKeyShare])), tls.changeCipherSpec];
  return {
    writes: [...opening, finished.sent, ...records.map(({ sent }) => sent)],
    expected: Buffer.concat([...opening, finished.sent, ...records.map(({ patched }) => patched)]),
    requests,
  };
}

async function check(address: string, { writes, expected, requests }: Stream, noDelay = true): Promise<void> {
  const arrived = await transfer(address, writes, noDelay);
  assert.equal(arrived.length, expected.length);
  assert.ok(arrived.equals(expected), "the server has got another stream than the patched one");
  const events = await lab.events();
  assert.deepEqual(new Set(events.map(({ kind }) => kind)), new Set(["substituted"]));
  assert.equal(events.length, requests, "each substitution is reported once, however often it was sent");
  assert.equal(lab.kernel.table("patches").entries().length, 0, "all acknowledged, all forgotten");
}

function offload(...settings: readonly string[]): void {
  runSync("ip", ["netns", "exec", pod.name, "ethtool", "-K", "wire0", ...settings]);
}

for (const [name, settings] of [
  ["offloads on: GSO packets, checksum left to the device", ["tx", "on", "tso", "on", "gso", "on", "sg", "on"]],
  ["checksum complete in the workload (tx off)", ["tx", "off"]],
  ["no segmentation offload", ["tx", "on", "tso", "off", "gso", "off"]],
  ["nothing at all", ["tx", "off", "tso", "off", "gso", "off", "sg", "off"]],
] as const) {
  for (const [family, address] of Object.entries(addresses)) {
    test(`${family}, ${name}`, async () => {
      offload("tx", "on", "sg", "on", "tso", "on", "gso", "on");
      offload(...settings);
      await check(address, stream(300_000, 5000));
      await check(address, stream(3_000_000, 16385), false);
      await check(address, stream(20_000, 100));
    });
  }
}

test("a small MTU", async () => {
  offload("tx", "on", "sg", "on", "tso", "on", "gso", "on");
  runSync("ip", ["-n", pod.name, "link", "set", "wire0", "mtu", "600"]);
  try {
    await check(addresses.IPv4, stream(300_000, 4000));
  } finally {
    runSync("ip", ["-n", pod.name, "link", "set", "wire0", "mtu", "1500"]);
  }
});

test("every ninth packet lost behind us, and every ninth acknowledgement", async () => {
  const rules = `
    table inet loss {
      chain in { type filter hook input priority 0; tcp dport ${port} numgen random mod 9 == 0 drop; }
      chain out { type filter hook output priority 0; tcp sport ${port} numgen random mod 9 == 0 drop; }
    }
  `;
  runSync("ip", ["netns", "exec", server.name, "nft", "-f", "-"], rules);
  try {
    for (const gso of ["on", "off"]) {
      offload("tso", gso, "gso", gso);
      await check(addresses.IPv4, stream(400_000, 3000));
    }
  } finally {
    runSync("ip", ["netns", "exec", server.name, "nft", "delete", "table", "inet", "loss"]);
  }
});

/** Sends each write as pages of a file, which it could still change while TCP has not got them acknowledged. */
const fileSender = `
import base64, json, os, socket, sys, tempfile
order = json.load(sys.stdin)
peer = socket.create_connection((order["host"], order["port"]))
for write in map(base64.b64decode, order["writes"]):
    with tempfile.TemporaryFile() as file:
        file.write(write)
        file.flush()
        sent = 0
        while sent < len(write):
            sent += os.sendfile(peer.fileno(), file.fileno(), sent, len(write) - sent)
peer.close()
`;

test("bytes that the workload can still change take no substitution (Linux 6.2)", async () => {
  offload("tx", "on", "sg", "on", "tso", "on", "gso", "on");
  const { writes } = stream(20_000, 1000);
  const arrived = await transfer(addresses.IPv4, writes, true, ["python3", "-c", fileSender]);
  assert.ok(arrived.equals(Buffer.concat(writes)), "the server has got what the workload sent");
  const reasons = new Set((await lab.events()).map(({ kind, reason }) => `${kind} ${reason}`));
  assert.deepEqual(reasons, new Set(["refused unproven-flow"]));
});
