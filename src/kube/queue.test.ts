import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { KubeError } from "./error.ts";
import { KeyedQueue } from "./queue.ts";
import { until } from "./testing.ts";

/** Work that ends when the test says so. */
class Work {
  readonly started: string[] = [];
  readonly #under = new Map<string, () => void>();
  most = 0;
  readonly do = (key: string): Promise<void> => {
    assert.ok(!this.#under.has(key), `${key} is under way twice`);
    this.started.push(key);
    return new Promise((resolve) => {
      this.#under.set(key, resolve);
      this.most = Math.max(this.most, this.#under.size);
    });
  };

  get underWay(): readonly string[] {
    return [...this.#under.keys()];
  }

  end(key: string): void {
    const resolve = this.#under.get(key);
    this.#under.delete(key);
    resolve?.();
  }
}

/** Lets everything run that can. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

test("each key is under way at most once, is worked on after its last change, and no more workers run than allowed", async () => {
  const key = fc.constantFrom("a", "b", "c", "d", "e");
  const step = fc.oneof(
    fc.record({ what: fc.constant("add" as const), key }),
    fc.record({ what: fc.constant("end" as const), key }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 3 }), async (steps, workers) => {
      const work = new Work();
      const queue = new KeyedQueue({ work: work.do, workers });
      const stop = new AbortController();
      const running = queue.run(stop.signal);
      const owed = new Set<string>();
      let seen = 0;
      const look = (): void => {
        for (; seen < work.started.length; seen++) owed.delete(work.started[seen] ?? "");
      };
      for (const { what, key } of steps) {
        look();
        if (what === "add") {
          queue.add(key);
          owed.add(key);
        } else work.end(key);
        await settle();
      }
      while (!queue.idle) {
        for (const key of work.underWay) work.end(key);
        await settle();
      }
      look();
      assert.deepEqual([...owed], [], "a change was not worked on");
      assert.ok(work.most <= workers);
      stop.abort();
      await running;
    }),
  );
});

test("keys are taken in the order in which they came", async () => {
  const work = new Work();
  const queue = new KeyedQueue({ work: work.do, workers: 1 });
  const stop = new AbortController();
  for (const key of ["c", "a", "b", "a"]) queue.add(key);
  const running = queue.run(stop.signal);
  while (!queue.idle) {
    for (const key of work.underWay) work.end(key);
    await settle();
  }
  assert.deepEqual(work.started, ["c", "a", "b"]);
  stop.abort();
  await running;
});

test("what fails comes again, later each time; after a success soon again", async () => {
  const delays: number[] = [];
  let failures = 4;
  const queue = new KeyedQueue({
    work: async () => {
      if (failures-- > 0) throw new Error("not yet");
    },
    failed: (_, __, retryMs) => delays.push(retryMs),
  });
  const stop = new AbortController();
  const running = queue.run(stop.signal);
  queue.add("a");
  await until("four failures and a success", () => failures < 0 && queue.idle);
  for (const [index, ms] of delays.entries()) assert.ok(ms >= 50 * 2 ** index && ms <= 100 * 2 ** index, `${delays}`);
  failures = 1;
  queue.add("a");
  await until("a fifth failure", () => failures < 0 && queue.idle);
  assert.ok((delays[4] ?? Infinity) <= 100);
  stop.abort();
  await running;
});

test("a server that wants to be left alone is left alone", async () => {
  const delays: number[] = [];
  const queue = new KeyedQueue({
    work: () => Promise.reject(new KubeError(429, "TooManyRequests", "later", { retryAfter: 7 })),
    failed: (_, __, retryMs) => delays.push(retryMs),
  });
  const stop = new AbortController();
  const running = queue.run(stop.signal);
  queue.add("a");
  await until("a failure", () => delays.length > 0);
  assert.deepEqual(delays, [7000]);
  stop.abort();
  await running;
});

test("a queue that has ended can begin again, with what came meanwhile and without old timers", async () => {
  const done: string[] = [];
  let isFailing = true;
  const queue = new KeyedQueue({
    work: async (key) => {
      if (isFailing) throw new Error("not yet");
      done.push(key);
    },
  });
  const first = new AbortController();
  const running = queue.run(first.signal);
  queue.add("a");
  await settle();
  first.abort();
  await running;
  isFailing = false;
  queue.add("b");
  assert.equal(queue.idle, false);
  const second = new AbortController();
  const again = queue.run(second.signal);
  await until("what came meanwhile", () => queue.idle);
  assert.deepEqual(done, ["b"]);
  second.abort();
  await again;
});
