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
  site = await Site.create();
  await site.agent();
  workload = await site.workload();
  placeholder = await site.bind("KEY", value, workload);
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
