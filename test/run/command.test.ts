/* What `kloak run` is for its command and its caller: streams, status, signals, environment, user. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { kloak, Running, traces } from "./kloak.ts";

const directory = mkdtempSync(join(tmpdir(), "kloak-run-"));
chmodSync(directory, 0o755);
after(() => rmSync(directory, { recursive: true, force: true }));

const plain = join(directory, "plain");
writeFileSync(plain, "no program\n");

const statuses: readonly { command: readonly string[]; status: number; message?: RegExp }[] = [
  { command: ["true"], status: 0 },
  { command: ["sh", "-c", "exit 7"], status: 7 },
  { command: ["sh", "-c", "exit 255"], status: 255 },
  { command: ["sh", "-c", "kill -TERM $$"], status: 143 },
  { command: ["sh", "-c", "kill -KILL $$"], status: 137 },
  { command: ["sh", "-c", "kill -SEGV $$"], status: 139 },
  { command: ["no-such-command"], status: 127, message: /"no-such-command" not found: it is nowhere on PATH/ },
  { command: ["./no-such-file"], status: 127, message: /"\.\/no-such-file" not found: there is no such file/ },
  { command: [plain], status: 126, message: /cannot be executed/ },
  { command: [directory], status: 126, message: /cannot be executed/ },
];
for (const { command, status, message } of statuses) {
  test(`the exit status of ${command.join(" ").replace(directory, "…")} is ${status}`, async () => {
    const outcome = await kloak(["run", "--", ...command]);
    assert.equal(outcome.status, status, outcome.stderr);
    if (message === undefined) assert.equal(outcome.stderr, "");
    else assert.match(outcome.stderr, message);
  });
}

test("standard streams are the command's, byte for byte", async () => {
  const input = randomBytes(300_000).toString("base64");
  const outcome = await kloak(["run", "--", "sh", "-c", "cat; echo error >&2"], { input });
  assert.equal(outcome.stdout, input);
  assert.equal(outcome.stderr, "error\n");
});

test("the working directory is the caller's", async () => {
  const outcome = await kloak(["run", "--", "pwd"], { cwd: directory });
  assert.equal(outcome.stdout, `${directory}\n`);
});

test("arguments arrive as they are, options of the command included", async () => {
  const outcome = await kloak(["run", "printf", "%s|", "--json", "a b", "", "--", "-x"]);
  assert.equal(outcome.stdout, "--json|a b||--|-x|");
});

for (const [signal, number] of [
  ["SIGTERM", 15],
  ["SIGINT", 2],
  ["SIGHUP", 1],
  ["SIGQUIT", 3],
  ["SIGUSR1", 10],
  ["SIGUSR2", 12],
] as const) {
  test(`${signal} to kloak is the command's`, async () => {
    const script = `trap 'echo got; exit 9' ${number}; echo up; while :; do read line; done`;
    const running = new Running(["run", "--", "bash", "-c", script]);
    await running.says("up");
    running.process.kill(signal);
    const outcome = await running.ended;
    assert.equal(outcome.stdout, "up\ngot\n");
    assert.equal(outcome.status, 9);
  });
}

test("a signal to the whole process group reaches the command once", async () => {
  const script = "trap 'echo got' INT; echo up; while read line; do echo $line; done; exit 4";
  const running = new Running(["run", "--", "bash", "-c", script], { detached: true });
  await running.says("up");
  process.kill(-running.pid, "SIGINT");
  await running.says("got");
  running.process.stdin?.end("last\n");
  const outcome = await running.ended;
  assert.equal(outcome.stdout, "up\ngot\nlast\n");
  assert.equal(outcome.status, 4);
});

test("children that the command leaves behind end with it", async () => {
  const running = new Running(["run", "--", "sh", "-c", "(trap '' TERM; setsid sleep 300) & echo up; read line"]);
  await running.says("up");
  const { record } = running;
  assert.ok(record);
  running.process.stdin?.end("\n");
  assert.equal((await running.ended).status, 0);
  assert.deepEqual(await traces(record.id, record.netns), []);
});

test("--user runs the command as that user, with its groups and home", async () => {
  const script = "id -un; id -Gn; echo $HOME $USER $LOGNAME; echo $KEPT";
  const outcome = await kloak(["run", "--user", "nobody", "--", "sh", "-c", script], { env: { KEPT: "kept" } });
  assert.equal(outcome.stderr, "");
  assert.equal(outcome.stdout, "nobody\nnogroup\n/nonexistent nobody nobody\nkept\n");
});

test("under sudo the command runs as who called it", async () => {
  const outcome = await kloak(["run", "--", "id", "-un"], { env: { SUDO_USER: "daemon", SUDO_UID: "1" } });
  assert.equal(outcome.stdout, "daemon\n");
});

test("a command that another user may not execute is not executable", async () => {
  const file = join(directory, "mine");
  writeFileSync(file, "#!/bin/sh\n", { mode: 0o700 });
  const outcome = await kloak(["run", "--user", "nobody", "--", file]);
  assert.equal(outcome.status, 126);
  assert.match(outcome.stderr, /no executable file for the user/);
});

test("signals that the caller ignores are ignored by the command", async () => {
  const outcome = await kloak(["run", "--", "grep", "SigIgn", "/proc/self/status"], { within: ["nohup"] });
  assert.match(outcome.stdout, /SigIgn:\s+0*1$/m);
});
