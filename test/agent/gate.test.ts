/*
 * The gate of `kloak agent`: short processes, new files, files that are rewritten, and what a workload may put in its way.
 * Needs root.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Namespace } from "../../src/lab/namespace.ts";
import { until } from "../run/kloak.ts";
import { header } from "../support/requests.ts";
import { type Client, Site } from "./site.ts";

const value = "sk-live-Vq7Tn2RkXw9LbN6cHs1Zp4M";
const processes = 1000;
let site: Site;
let workload: Namespace;
let placeholder: string;

before(async () => {
  ({ site, workload, placeholder } = await Site.protecting(value));
});
after(() => site?.close());

async function done(client: Client): Promise<void> {
  assert.equal(await client.ended, 0, client.errors);
}

async function keys(): Promise<string[]> {
  const { requests } = await site.server.take();
  return requests.map((request) => header(request, "authorization"));
}

test(`${processes} short processes that each make a request at once are all substituted`, async () => {
  await site.server.take();
  const script = `seq ${processes} | xargs -P 8 -I{} "$@" -o /dev/null`;
  const [curl = "", ...args] = site.curl(placeholder, "{}");
  await done(site.client(workload, ["sh", "-c", script, "sh", curl, ...args]));
  const got = await keys();
  assert.equal(got.length, processes);
  assert.deepEqual([...new Set(got)], [`Bearer ${value}`]);
});

test("a program and its library that were written a moment ago are hooked before they run", async () => {
  const library = execFileSync("sh", ["-c", "ldd /usr/bin/curl | awk '/libcrypto/ { print $3 }'"], {
    encoding: "utf8",
  }).trim();
  copyFileSync(library, join(site.folder, "libcrypto.so.3"));
  copyFileSync("/usr/bin/curl", join(site.folder, "new-curl"));
  chmodSync(join(site.folder, "new-curl"), 0o755);
  const [, ...args] = site.curl(placeholder, "new");
  await done(site.client(workload, [join(site.folder, "new-curl"), ...args], { LD_LIBRARY_PATH: site.folder }));
  assert.deepEqual(await keys(), [`Bearer ${value}`]);
});

/** Files that are pinned for the probes of this file. */
function probes(path: string): number {
  const place = execFileSync("stat", ["-c", "%d-%i", path], { encoding: "utf8" }).trim();
  const folder = join(site.bpffs.state, "v1/links", place);
  if (!existsSync(folder)) return 0;
  return readdirSync(folder).flatMap((sign) => readdirSync(join(folder, sign))).length;
}

test("a file that is rewritten in place loses the hooks of its old content, with an agent and without", async () => {
  const path = join(site.folder, "libcrypto.so.3");
  const content = readFileSync(path);
  const pid = Number((await site.ask({ do: "status" }))["pid"]);
  for (const alone of [false, true]) {
    const [, ...args] = site.curl(placeholder, "again");
    await done(site.client(workload, [join(site.folder, "new-curl"), ...args], { LD_LIBRARY_PATH: site.folder }));
    assert.deepEqual(await keys(), [`Bearer ${value}`]);
    assert.ok(probes(path) > 0);
    if (alone) {
      process.kill(pid, "SIGKILL");
      await until("the agent is gone", async () => (await site.ask({ do: "status" }).catch(() => null)) === null);
    }
    writeFileSync(path, "no library any more", { flag: "r+" });
    await until("its probes are gone", () => probes(path) === 0);
    writeFileSync(path, content, { flag: "r+" });
  }
  await site.agent();
});

test("a FIFO, an empty file and text that are executed hold nobody up", async () => {
  const script = `cd ${site.folder}; mkfifo fifo; chmod +x fifo; : > empty; echo x > text; chmod +x empty text
./fifo 2>/dev/null; ./empty; ./text 2>/dev/null; exit 0`;
  await done(site.client(workload, ["sh", "-c", script]));
  await done(site.client(workload, site.curl(placeholder, "then")));
  assert.deepEqual(await keys(), [`Bearer ${value}`]);
});

test("while the agent hangs programs start all the same, and it says later which it has not looked at", async () => {
  const agent = await site.agent();
  agent.child.kill("SIGSTOP");
  const late = join(site.folder, "late-curl");
  copyFileSync("/usr/bin/curl", late);
  const [, ...args] = site.curl(placeholder, "late");
  await done(site.client(workload, [late, ...args]));
  // Its libcrypto has been hooked for long: the record is heard although nobody looked at the program.
  assert.deepEqual(await keys(), [`Bearer ${value}`]);
  agent.child.kill("SIGCONT");
  await until("the warning", () => agent.said.includes("was let through before it was looked at"));
});

test("a flood of new programs in one workload neither ends the agent nor stops another workload", async () => {
  const other = await site.workload();
  const key = await site.bind("OTHER", "sk-live-8Wd3Yt6Gx1Jv5Bq0Ks9Zu2", other);
  const script = `mkdir ${site.folder}/flood; cd ${site.folder}/flood; echo up
for i in $(seq 300); do (cat /bin/true; echo $i) > p$i; chmod +x p$i; ./p$i & done; wait`;
  const flood = site.client(workload, ["sh", "-c", script]);
  await until("it has begun", () => flood.output.includes("up"));
  await done(site.client(other, site.curl(key, "calm")));
  assert.deepEqual(await keys(), ["Bearer sk-live-8Wd3Yt6Gx1Jv5Bq0Ks9Zu2"]);
  await done(flood);
  assert.ok((await site.ask({ do: "status" }))["ok"]);
});
