/*
 * The promise: what "nothing left in two versions" of the fuzz with real TCP rests on would show it if something did. The
 * same connections are tried with a wire program that has a mistake, and that mistake is found. Needs root.
 */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { test } from "node:test";
import { runReal } from "../fuzz/real/run.ts";

const wire = new URL("../../build/test/wire-once.bpf.o", import.meta.url).pathname;

test("a wire program that patches nothing that TCP sends again is found out", async () => {
  const { problems, tally, directory } = await runReal({ seed: 1, count: 30, kinds: ["drop", "cut"], wire });
  rmSync(directory, { recursive: true, force: true });
  assert.ok(tally.repeated > 0, "TCP has sent nothing again: nothing has been tried");
  const texts = problems.map(({ text }) => text).join("\n");
  assert.match(texts, /two versions/, texts);
});
