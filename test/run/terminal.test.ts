/* A terminal in front of `kloak run` is the command's, as if kloak were not there. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { kloakFile } from "./kloak.ts";

interface Step {
  readonly expect: string;
  readonly running?: string;
  readonly send?: string;
}

interface Dialogue {
  readonly transcript: string;
  readonly status: number;
  readonly failed: string | null;
}

/** Talks to an interactive bash whose prompt is `outer> `. */
function dialogue(steps: readonly Step[]): Promise<Dialogue> {
  const argv = ["env", "TERM=dumb", "PS1=outer> ", "bash", "--norc", "--noprofile", "-i"];
  const plan = { argv, steps: [...steps, { expect: "outer> $", send: "exit 0\n" }], deadline: 60 };
  return new Promise((resolve, reject) => {
    const child = execFile("python3", [join(import.meta.dirname, "terminal.py")], (error, stdout) => {
      if (error) reject(error);
      else resolve(JSON.parse(stdout) as Dialogue);
    });
    child.stdin?.end(JSON.stringify(plan));
  });
}

const run = `${kloakFile} run --`;
const ctrl = { c: "\u0003", z: "\u001a", d: "\u0004", backslash: "\u001c" };

/** Until bash has heard that the job goes on, `wait` returns at once and says that it is stopped (128 + SIGSTOP). */
const awaitContinued = "status=147; while [ $status = 147 ]; do wait %1; status=$?; done;";

const cases: readonly { name: string; steps: readonly Step[] }[] = [
  {
    name: "Ctrl-C ends the command and gives 130",
    steps: [
      { expect: "outer> $", send: `${run} sh -c 'echo u''p; sleep 300'\n` },
      { expect: "up\r\n", running: "sleep 300", send: ctrl.c },
      { expect: "outer> $", send: "echo status=$?\n" },
      { expect: "status=130\r\n" },
    ],
  },
  {
    name: "Ctrl-\\ gives 131",
    steps: [
      { expect: "outer> $", send: `ulimit -c 0; ${run} sh -c 'echo u''p; exec sleep 300'\n` },
      { expect: "up\r\n", running: "sleep 300", send: ctrl.backslash },
      { expect: "outer> $", send: "echo status=$?\n" },
      { expect: "status=131\r\n" },
    ],
  },
  {
    name: "Ctrl-Z stops the job, fg goes on with it, and it reads the terminal again",
    steps: [
      { expect: "outer> $", send: `${run} sh -c 'echo u''p; while read x; do echo got-$x; done'\n` },
      { expect: "up\r\n", send: "one\n" },
      { expect: "got-one\r\n", send: ctrl.z },
      { expect: "Stopped", send: "fg\n" },
      { expect: "fg\r\n", send: "two\n" },
      { expect: "got-two\r\n", send: ctrl.d },
      { expect: "outer> $", send: "echo status=$?\n" },
      { expect: "status=0\r\n" },
    ],
  },
  {
    name: "the host executes programs as ever while the job is stopped",
    steps: [
      {
        expect: "outer> $",
        send: `KEY=0123456789abcdefghij ${kloakFile} run --secret KEY@a.test -- sh -c 'echo u''p; sleep 300'\n`,
      },
      { expect: "up\r\n", running: "sleep 300", send: ctrl.z },
      { expect: "Stopped", send: `/bin/echo still-$((1+1)); kill %1; ${awaitContinued} echo ended-$status\n` },
      { expect: "still-2\r\n" },
      { expect: "ended-143\r\n" },
    ],
  },
  {
    name: "a stopped job continues in the background",
    steps: [
      { expect: "outer> $", send: `${run} sh -c 'echo u''p; kill -STOP $$; echo on'\n` },
      { expect: "up\r\n" },
      { expect: "Stopped", send: "bg; wait; echo status=$?\n" },
      { expect: "on\r\n" },
      { expect: "status=0\r\n" },
    ],
  },
  {
    name: "an interactive shell has job control, and gives its status",
    steps: [
      { expect: "outer> $", send: `PS1='inner> ' ${run} bash --norc --noprofile -i\n` },
      { expect: "inner> $", send: "sh -c 'echo u''p; read line; echo got-$line; sleep 300'\n" },
      { expect: "up\r\n", send: ctrl.z },
      { expect: "Stopped", send: "fg\n" },
      { expect: "fg\r\nsh -c [^\n]*\n", send: "x\n" },
      { expect: "got-x\r\n", running: "sleep 300", send: ctrl.c },
      { expect: "inner> $", send: "echo inside-$?\n" },
      { expect: "inside-130\r\n", send: "exit 5\n" },
      { expect: "outer> $", send: "echo status=$?\n" },
      { expect: "status=5\r\n" },
    ],
  },
  {
    name: "a pipeline keeps its terminal",
    steps: [
      {
        expect: "outer> $",
        send: `${run} sh -c 'echo u''p; tty </dev/tty' | (cat; read line </dev/tty; echo got-$line)\n`,
      },
      { expect: "up\r\n/dev/(pts/\\d+|tty)\r\n", send: "x\n" },
      { expect: "got-x\r\n" },
    ],
  },
  {
    name: "the size of the terminal is the command's",
    steps: [{ expect: "outer> $", send: `stty cols 93 rows 41; ${run} stty size\n` }, { expect: "41 93\r\n" }],
  },
];

for (const { name, steps } of cases) {
  test(name, async () => {
    const { transcript, failed, status } = await dialogue(steps);
    assert.equal(failed, null, transcript);
    assert.equal(status, 0, transcript);
  });
}
