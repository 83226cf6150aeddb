/* Whatever ends a run, nothing of it stays: no namespace, link, filter, rule, file, process or changed setting. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { after, test } from "node:test";
import { createNamespace } from "../../src/lab/namespace.ts";
import { isAlive, listEverywhere } from "../../src/run/state.ts";
import { Running, type StartOptions, settings as settingsOn, traces as tracesOn, until } from "./kloak.ts";

/** A host of their own: other runs of this machine change settings of its, and tidy up, whenever they like. */
const host = createNamespace();
after(() => host.close());
const closed = "for file in /proc/sys/net/ipv[46]/conf/*/forwarding; do echo 0 >$file; done";
execFileSync("ip", ["netns", "exec", host.name, "sh", "-c", closed]);

const onHost = (argv: readonly string[]) => host.within(argv);
const settings = () => settingsOn(onHost);
const traces = (id: string, netns: number | undefined) => tracesOn(id, netns, onHost);
const start = (args: readonly string[], options: StartOptions = {}) =>
  new Running(args, { ...options, within: host.within([]) });
const kloak = (args: readonly string[]) => start(args, { input: "" }).ended;

const sleeper = "echo up; trap '' HUP; sleep 300";

async function started(script = sleeper) {
  const running = start(["run", "--", "sh", "-c", script]);
  await running.says("up");
  const { record } = running;
  assert.ok(record?.launcher && record.netns, "a record of the run");
  assert.notDeepEqual(await traces(record.id, record.netns), [], "what is to be gone later is there now");
  return { running, record, launcher: record.launcher.pid };
}

const gone = (id: string, netns: number | undefined) =>
  until(`run ${id} to be gone`, async () => (await traces(id, netns)).length === 0);

test("nothing is left after the command has ended", async () => {
  const before = await settings();
  const { running, record } = await started("echo up; read line");
  running.process.stdin?.end("\n");
  await running.ended;
  assert.deepEqual(await traces(record.id, record.netns), []);
  assert.equal(await settings(), before);
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`nothing is left after ${signal}`, async () => {
    const before = await settings();
    const { running, record } = await started("echo up; exec sleep 300");
    running.process.kill(signal);
    const outcome = await running.ended;
    assert.equal(outcome.status, signal === "SIGINT" ? 130 : 143);
    assert.deepEqual(await traces(record.id, record.netns), []);
    assert.equal(await settings(), before);
  });
}

test("nothing is left after kloak was killed, not even a command that ignores SIGTERM", async () => {
  const before = await settings();
  const { running, record } = await started("trap '' TERM HUP; echo up; while :; do sleep 300; done");
  running.process.kill("SIGKILL");
  await running.ended;
  await gone(record.id, record.netns);
  assert.equal(await settings(), before);
});

test("nothing is left after the launcher was killed", async () => {
  const before = await settings();
  const { running, record, launcher } = await started();
  process.kill(launcher, "SIGKILL");
  const outcome = await running.ended;
  assert.equal(outcome.status, 137);
  assert.deepEqual(await traces(record.id, record.netns), []);
  assert.equal(await settings(), before);
});

test("what stays when kloak and the launcher are killed at once is tidied up by the next run", async () => {
  const before = await settings();
  const { running, record, launcher } = await started();
  process.kill(running.pid, "SIGSTOP"); // so that neither can react to the other's death
  process.kill(launcher, "SIGKILL");
  running.process.kill("SIGKILL");
  await until("both to be gone", () => !isAlive(record.kloak) && !(record.launcher && isAlive(record.launcher)));
  assert.ok(
    listEverywhere().some(({ id }) => id === record.id),
    "the record is there for who comes next",
  );
  const next = await kloak(["run", "--", "true"]);
  assert.match(next.stderr, /tidied up after an earlier run \(sh\)/);
  assert.deepEqual(await traces(record.id, record.netns), []);
  assert.equal(await settings(), before);
});

test("kloak doctor --clean does the same", async () => {
  const { running, record, launcher } = await started();
  process.kill(running.pid, "SIGSTOP");
  process.kill(launcher, "SIGKILL");
  running.process.kill("SIGKILL");
  await until("both to be gone", () => !isAlive(record.kloak) && !(record.launcher && isAlive(record.launcher)));
  const doctor = await kloak(["doctor", "--json"]);
  assert.match(doctor.stdout, new RegExp(`${record.id} \\(sh\\)`));
  const clean = await kloak(["doctor", "--clean"]);
  assert.equal(clean.status, 0, clean.stderr);
  assert.match(clean.stderr, new RegExp(`removed what run ${record.id} \\(sh\\) had left`));
  assert.deepEqual(await traces(record.id, record.netns), []);
});

test("a sandbox in a network namespace of its own ends with the command that started it", async () => {
  const sandbox = "unshare --user --map-root-user --net setsid sh -c \"trap '' TERM; echo up \\$\\$; exec sleep 300\"";
  const { running } = await started(`${sandbox} & read line`);
  const pid = Number(/up (\d+)/.exec(running.stdout)?.[1]);
  assert.ok(existsSync(`/proc/${pid}`));
  running.process.stdin?.end("\n");
  assert.equal((await running.ended).status, 0);
  assert.ok(!existsSync(`/proc/${pid}`), "the sandbox is gone");
});

test("nothing is left after a command that has renamed its interface, when kloak was killed", async () => {
  const { running, record } = await started(
    "ip link set eth0 down && ip link set eth0 name other && echo up; sleep 300",
  );
  running.process.kill("SIGKILL");
  await running.ended;
  await gone(record.id, record.netns);
});

test("nothing is left of a run that fails before its command starts", async () => {
  const before = await settings();
  const running = start(["run", "--", "no-such-command"], { input: "" });
  assert.equal((await running.ended).status, 127);
  assert.equal(running.record, undefined);
  assert.equal(await settings(), before);
});

test("the settings that runs share stay until the last of them has ended", async () => {
  const before = await settings();
  const first = await started("echo up; read line");
  const during = await settings();
  assert.notEqual(during, before);
  const second = await started("echo up; read line");
  assert.equal(await settings(), during);
  first.running.process.stdin?.end("\n");
  await first.running.ended;
  assert.equal(await settings(), during);
  second.running.process.stdin?.end("\n");
  await second.running.ended;
  assert.equal(await settings(), before);
});
