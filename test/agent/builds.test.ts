/*
 * The promise: an agent of a build with other programs takes over from this one and runs its own, and one whose maps are
 * arranged otherwise is refused and says so, while connections go on. Both builds are compiled for this test. Needs root.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { loadNative, projectRoot } from "../../src/dataplane/native.ts";
import { counter } from "../../src/dataplane/types.gen.ts";
import type { Namespace } from "../../src/lab/namespace.ts";
import { until } from "../run/kloak.ts";
import { header } from "../support/requests.ts";
import { host, Site } from "./site.ts";

const value = "sk-live-Jd5Wq9Zr2Yc7Mb4Xe1Tf8K";
const builds = mkdtempSync(join(tmpdir(), "kloak-builds-"));
let site: Site;
let workload: Namespace;
let placeholder: string;

before(async () => {
  ({ site, workload, placeholder } = await Site.protecting(value));
});
after(async () => {
  await site?.close();
  rmSync(builds, { recursive: true });
});

type Edit = readonly [file: string, before: string, after: string];

/** This clone with these edits, built. Gives its `bin/kloak`. */
function build(name: string, edits: readonly Edit[], generate: boolean): string {
  const folder = join(builds, name);
  for (const part of ["bin", "bpf", "build", "native", "scripts", "src", "Makefile", "package.json"])
    cpSync(join(projectRoot, part), join(folder, part), { recursive: true, preserveTimestamps: true });
  symlinkSync(join(projectRoot, "node_modules"), join(folder, "node_modules"));
  for (const [file, old, fresh] of edits) {
    const text = readFileSync(join(folder, file), "utf8");
    assert.ok(text.includes(old), `${file} does not hold ${old}`);
    writeFileSync(join(folder, file), text.replace(old, fresh));
  }
  const run = (file: string, args: readonly string[]) =>
    execFileSync(file, args, { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
  if (generate) run("sh", ["scripts/node", "scripts/generate-types.ts"]);
  run("make", ["--silent", `NODE_INCLUDE=${join(dirname(dirname(process.execPath)), "include/node")}`, "bpf"]);
  return join(folder, "bin/kloak");
}

/** What the pinned counter is now. */
function counted(which: number): bigint {
  const native = loadNative();
  const map = native.mapOpen(join(site.bpffs.state, "v1/maps/counters"), "counters");
  const key = Buffer.alloc(4);
  key.writeUInt32LE(which);
  const values = native.mapLookup(map, key) ?? Buffer.alloc(0);
  native.mapClose(map);
  let sum = 0n;
  for (let at = 0; at < values.length; at += 8) sum += values.readBigUInt64LE(at);
  return sum;
}

/** A connection of three requests; `between` the first and the second. */
async function threeRequests(between: () => Promise<void>): Promise<void> {
  await site.server.take();
  const program = `
import http.client, os, socket, ssl, sys
ca, address, port, name = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
connection = http.client.HTTPSConnection(name, int(port), timeout=60)
connection.sock = context.wrap_socket(socket.create_connection((address, int(port)), 60), server_hostname=name)
def ask():
    connection.request("GET", "/", headers={"Authorization": "Bearer " + os.environ["KEY"]})
    connection.getresponse().read()
ask(); print("one", flush=True); sys.stdin.readline(); ask(); ask()`;
  const argv = ["python3", "-c", program, site.authority.caFile, site.machine.ipv4.inside, String(site.port), host];
  const client = site.client(workload, argv, { KEY: placeholder });
  await until("the first answer", () => client.output.includes("one"));
  await between();
  client.line("");
  assert.equal(await client.ended, 0, client.errors);
  const { requests, faults } = await site.server.take();
  assert.deepEqual(faults, []);
  assert.deepEqual(
    requests.map((request) => header(request, "authorization")),
    Array.from({ length: 3 }, () => `Bearer ${value}`),
  );
}

/** Two counters that nothing else raises here, to see that it is these programs that run. */
const otherPrograms: readonly Edit[] = [
  [
    "bpf/wire.bpf.c",
    "\twalk->key.workload = workload;\n\tswitch",
    "\twalk->key.workload = workload;\n\tcount(counter_lease_expired);\n\tswitch",
  ],
  ["bpf/cipher/openssl.bpf.c", "\tif (!raw_key && !iv)\n", "\tcount(counter_patch_failed);\n\tif (!raw_key && !iv)\n"],
];
const otherLayout: readonly Edit[] = [["bpf/types/flow.h", "struct flow {\n", "struct flow {\n\t__u64 more;\n"]];

test("a build with other programs takes over, runs them, and gives way again", async () => {
  const file = build("programs", otherPrograms, false);
  await threeRequests(async () => {
    assert.deepEqual([counted(counter.leaseExpired), counted(counter.patchFailed)], [0n, 0n]);
    const next = await site.agentOf(file);
    assert.match(next.said, /goes on with the data plane/);
  });
  assert.ok(counted(counter.leaseExpired) > 0n, "its wire programs run");
  assert.ok(counted(counter.patchFailed) > 0n, "its programs for OpenSSL run");
  await threeRequests(async () => {
    const back = await site.agent();
    assert.match(back.said, /goes on with the data plane/);
  });
  const [wire, cipher] = [counted(counter.leaseExpired), counted(counter.patchFailed)];
  await threeRequests(() => Promise.resolve());
  assert.deepEqual([counted(counter.leaseExpired), counted(counter.patchFailed)], [wire, cipher], "and no more");
});

test("a build whose maps are arranged otherwise is refused, says which, and what there is goes on", async () => {
  const file = build("layout", otherLayout, true);
  await threeRequests(async () => {
    const refused = await site.agentOf(file);
    assert.equal((await refused.exit()).status, 1);
    assert.match(refused.said, /is arranged differently: map flows; map walks\. It goes on/);
  });
  assert.equal(typeof (await site.ask({ do: "status" }))["pid"], "number");
});
