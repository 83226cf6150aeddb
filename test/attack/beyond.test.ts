/*
 * THREATS A2, A9, C7, D14: what a workload can look into and hand around: dumps of its own processes, kloak's process and
 * maps, sockets of other workloads, sockets of odd kinds. Needs root.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { header } from "../support/requests.ts";
import { host, makeSecret, World } from "../support/world.ts";
import { withHostsFile } from "../../src/lab/names.ts";
import { audited, occurrences, program } from "./attack.ts";

const world = await World.create();
after(() => world.close());
const ca = world.authority.caFile;
const url = world.url("1.3 aes-256-gcm");
const folder = (name: string) => mkdtempSync(join(world.directory, name));
const authorizations = async () =>
  (await world.server.take()).requests.map((request) => header(request, "authorization"));

for (const { what, command } of [
  { what: "core dump", command: ["python3", program("dump.py")] },
  { what: "heap snapshot and error page", command: [process.execPath, program("snapshot.mjs")] },
]) {
  test(`A2: ${what}`, async () => {
    const value = makeSecret(51);
    const directory = folder("dump");
    const script = `"$@" && printf %s "$SECRET" > ${directory}/placeholder`;
    const outcome = await world.kloak({
      secrets: { SECRET: { value, hosts: host } },
      command: ["sh", "-c", script, "sh", ...command, ca, url, directory],
      options: ["--user", "root", "--quiet"],
    });
    assert.deepEqual({ stderr: outcome.stderr, status: outcome.status }, { stderr: "", status: 0 });
    assert.deepEqual(
      await authorizations(),
      Array.from({ length: 3 }, () => `Bearer ${value}`),
    );
    const placeholder = readFileSync(join(directory, "placeholder"));
    const dumps = readdirSync(directory).filter((file) => file !== "placeholder");
    assert.ok(dumps.length > 0);
    for (const file of dumps) {
      const bytes = readFileSync(join(directory, file));
      assert.ok(bytes.includes(placeholder), `${file} shows what the process knew`);
      assert.equal(occurrences(bytes, value), 0, file);
    }
  });
}

/** The result of each way that `reach.py` tries, by its name. */
const reached = (output: string) =>
  Object.fromEntries(
    output
      .trim()
      .split("\n")
      .map((line) => line.split(" ")),
  ) as Record<string, string>;

for (const user of ["root", "nobody"]) {
  test(`A9: memory, descriptors, namespaces and maps of kloak, for a command that runs as ${user}`, async () => {
    const run = world.start({
      secrets: { SECRET: { value: makeSecret(51), hosts: host } },
      command: ["sh", "-c", `read pid; python3 ${program("reach.py")} $pid; echo over; read end`],
      options: ["--user", user, "--quiet"],
      input: null,
    });
    const lines: string[] = [];
    run.child.stdout?.on("data", (chunk: Buffer) => lines.push(chunk.toString()));
    // The child has become kloak itself: a shell that executes it, in a mount namespace of its own.
    run.child.stdin?.write(`${run.child.pid}\n`);
    while (!lines.join("").includes("over\n")) {
      await Promise.race([once(run.child.stdout ?? run.child, "data"), run.ended]);
      assert.equal(run.child.exitCode, null, lines.join(""));
    }
    const bare = reached(execFileSync("python3", [program("reach.py"), String(run.child.pid)], { encoding: "utf8" }));
    run.child.stdin?.end("\n");
    const outcome = await run.ended;
    assert.deepEqual({ stderr: outcome.stderr, status: outcome.status }, { stderr: "", status: 0 });
    const tried = reached(outcome.stdout.replace("over\n", ""));
    assert.deepEqual(Object.keys(tried), Object.keys(bare));
    assert.equal(Object.keys(tried).length, 7);
    for (const [way, result] of Object.entries(tried)) assert.match(result, /^(EPERM|EACCES)$/, way);
    // The host's root gets in by every one of them: what keeps the command out is that it is not that.
    for (const [way, result] of Object.entries(bare)) assert.equal(result, "done", way);
  });
}

for (const where of ["another workload", "the host"] as const) {
  test(`C7: a connection of a workload is handed to a process of ${where}`, async () => {
    const path = join(folder("pass"), "socket");
    const secrets = { SECRET: { value: makeSecret(51), hosts: host } };
    const pass = (how: string) => ["python3", program("pass.py"), how, path, ca, url];
    const giver = world.start({
      secrets,
      command: ["sh", "-c", 'echo "$SECRET"; exec "$@"', "sh", ...pass("give")],
      options: ["--user", "root", "--quiet"],
      input: null,
    });
    const placeholder = await giver.firstLine();
    const given: Buffer[] = [];
    giver.child.stdout?.on("data", (chunk: Buffer) => given.push(chunk));
    const own = makeSecret(51);
    let audit: Record<string, number> = {};
    while (!readdirSync(join(path, "..")).includes("socket")) await new Promise((resolve) => setImmediate(resolve));
    if (where === "the host") {
      const [command = "", ...args] = withHostsFile(world.hostsFile, pass("take"));
      const taker = spawn(command, args, { env: { ...process.env, SECRET: placeholder }, stdio: "inherit" });
      assert.deepEqual(await once(taker, "exit"), [0, null]);
    } else {
      const taken = await world.kloak({
        secrets: { SECRET: { value: own, hosts: host } },
        command: pass("take"),
        options: ["--user", "root", "--quiet"],
      });
      assert.deepEqual({ stderr: taken.stderr, status: taken.status }, { stderr: "", status: 0 });
      audit = audited(taken.audit);
    }
    giver.child.stdin?.end();
    const outcome = await giver.ended;
    assert.equal(outcome.status, 0);
    const [authorization = "", ...more] = await authorizations();
    assert.deepEqual(more, []);
    assert.match(authorization, /^Bearer kloak:/);
    assert.equal(occurrences(authorization, own) + occurrences(authorization, secrets.SECRET.value), 0);
    assert.deepEqual({ ...audited(outcome.audit), ...audit }, {}, "nobody has heard and sent it");
  });
}

test("D14: multipath TCP, fast open, a bound device, a mapped address, a tiny window, io_uring, MACVLAN", async () => {
  const ways = ["multipath", "fast_open", "bound", "mapped", "small", "ring", "macvlan"];
  const values = ways.map(() => makeSecret(51));
  const outcome = await world.kloak({
    secrets: Object.fromEntries(ways.map((way, at) => [`WAY_${way}`, { value: values[at] ?? "", hosts: host }])),
    command: ["python3", program("ways.py"), ca, url],
    options: ["--user", "root", "--quiet"],
  });
  const { requests, faults } = await world.server.take();
  assert.deepEqual({ stderr: outcome.stderr, status: outcome.status, faults }, { stderr: "", status: 0, faults: [] });
  assert.deepEqual(
    requests.map((request) => `${request.path} ${header(request, "authorization")}`),
    ways.flatMap((way, at) => Array.from({ length: 2 }, () => `/${way} Bearer ${values[at]}`)),
    JSON.stringify(audited(outcome.audit)),
  );
  // IP_TRANSPARENT, with an address that is not the workload's: nothing of it leaves the host.
  assert.equal(outcome.stdout, "from another's address: nothing comes back\n");
});
