/* Whatever ends a run, nothing of it stays: no namespace, link, filter, rule, file, process or changed setting. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isAlive, list } from "../../src/run/state.ts";
import { Running, kloak, settings, traces, until } from "./kloak.ts";

const sleeper = "echo up; trap '' HUP; sleep 300";

async function started(script = sleeper, options: ConstructorParameters<typeof Running>[1] = {}) {
  const running = new Running(["run", "--", "sh", "-c", script], options);
  await running.says("up");
  const { record } = running;
  assert.ok(record?.launcher && record.netns, "a record of the run");
  assert.notDeepEqual(await traces(record.id, record.netns), [], "what is to be gone later is there now");
  return { running, record, launcher: record.launcher.pid };
}

const gone = (id: string, netns: number | undefined) =>
  until(`run ${id} to be gone`, async () => (await traces(id, netns)).length === 0);

test("nothing is left after the command has ended", async () => {
  const before = settings();
  const { running, record } = await started("echo up; read line");
  running.process.stdin?.end("\n");
  await running.ended;
  assert.deepEqual(await traces(record.id, record.netns), []);
  assert.equal(settings(), before);
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`nothing is left after ${signal}`, async () => {
    const before = settings();
    const { running, record } = await started("echo up; exec sleep 300");
    running.process.kill(signal);
    const outcome = await running.ended;
    assert.equal(outcome.status, signal === "SIGINT" ? 130 : 143);
    assert.deepEqual(await traces(record.id, record.netns), []);
    assert.equal(settings(), before);
  });
}

test("nothing is left after kloak was killed, not even a command that ignores SIGTERM", async () => {
  const before = settings();
  const { running, record } = await started("trap '' TERM HUP; echo up; while :; do sleep 300; done");
  running.process.kill("SIGKILL");
  await running.ended;
  await gone(record.id, record.netns);
  assert.equal(settings(), before);
});

test("nothing is left after the launcher was killed", async () => {
  const before = settings();
  const { running, record, launcher } = await started();
  process.kill(launcher, "SIGKILL");
  const outcome = await running.ended;
  assert.equal(outcome.status, 137);
  assert.deepEqual(await traces(record.id, record.netns), []);
  assert.equal(settings(), before);
});

test("what stays when kloak and the launcher are killed at once is tidied up by the next run", async () => {
  const before = settings();
  const { running, record, launcher } = await started();
  process.kill(running.pid, "SIGSTOP"); // so that neither can react to the other's death
  process.kill(launcher, "SIGKILL");
  running.process.kill("SIGKILL");
  await until("both to be gone", () => !isAlive(record.kloak) && !(record.launcher && isAlive(record.launcher)));
  assert.ok(
    list().some(({ id }) => id === record.id),
    "the record is there for who comes next",
  );
  const next = await kloak(["run", "--", "true"]);
  assert.match(next.stderr, /tidied up after an earlier run \(sh\)/);
  assert.deepEqual(await traces(record.id, record.netns), []);
  assert.equal(settings(), before);
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

test("nothing is left of a run that fails before its command starts", async () => {
  const before = settings();
  const running = new Running(["run", "--", "no-such-command"], { input: "" });
  assert.equal((await running.ended).status, 127);
  assert.equal(running.record, undefined);
  assert.equal(settings(), before);
});

test("the settings that runs share stay until the last of them has ended", async () => {
  const before = settings();
  const first = await started("echo up; read line");
  const during = settings();
  const second = await started("echo up; read line");
  assert.equal(settings(), during);
  first.running.process.stdin?.end("\n");
  await first.running.ended;
  assert.equal(settings(), during);
  second.running.process.stdin?.end("\n");
  await second.running.ended;
  assert.equal(settings(), before);
});
