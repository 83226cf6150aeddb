import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SecretValue } from "../placeholder/index.ts";
import { FeedCursor, type FeedLine, type PodState } from "./node-feed.ts";

interface World {
  readonly [pod: string]: Readonly<Record<string, string>>;
}

function stateOf(world: World): readonly PodState[] {
  return Object.entries(world).map(([uid, secrets]) => ({
    pod: { metadata: { name: uid, namespace: "n", uid, resourceVersion: "1" }, node: "a", shadows: new Map() },
    secrets: Object.entries(secrets).map(([name, value]) => ({
      secret: {
        name,
        value: new SecretValue(value),
        placeholder: `kloak:${value}`,
        policy: { hosts: "a.test" },
        ca: undefined,
      },
      roots: undefined,
    })),
  }));
}

/** What an agent knows after these lines; it must never meet a number that it does not know. */
class Reader {
  readonly #secrets = new Map<number, { name: string; value: string }>();
  readonly #pods = new Map<string, readonly number[]>();

  read(lines: readonly FeedLine[]): void {
    for (const line of lines) {
      if (line.type === "secret") {
        assert.ok(!this.#secrets.has(line.number), "numbers are given once");
        this.#secrets.set(line.number, { name: line.name, value: Buffer.from(line.value, "base64").toString() });
      } else if (line.type === "pod") {
        for (const number of line.secrets) assert.ok(this.#secrets.has(number), "a secret comes before its pod");
        this.#pods.set(line.uid, line.secrets);
      } else if (line.type === "gone") {
        assert.ok(this.#pods.delete(line.uid));
      } else if (line.type === "forget") {
        assert.ok(this.#secrets.delete(line.number));
        for (const numbers of this.#pods.values()) assert.ok(!numbers.includes(line.number), "in use, and forgotten");
      }
    }
  }

  get world(): World {
    const secretsOf = (numbers: readonly number[]) =>
      Object.fromEntries(numbers.map((number) => [this.#secrets.get(number)?.name, this.#secrets.get(number)?.value]));
    return Object.fromEntries([...this.#pods].map(([uid, numbers]) => [uid, secretsOf(numbers)]));
  }

  get secrets(): number {
    return this.#secrets.size;
  }
}

test("whatever changes, the agent knows what the controller wants, and nothing more", () => {
  const names = fc.constantFrom("n/s/a", "n/s/b", "n/t/a");
  const pods = fc.constantFrom("p1", "p2", "p3");
  const values = fc.constantFrom("one", "two");
  // A secret has one value at a time, whichever pod uses it.
  const worlds = fc
    .tuple(fc.dictionary(names, values), fc.dictionary(pods, fc.uniqueArray(names)))
    .map(([valueOf, uses]) =>
      Object.fromEntries(
        Object.entries(uses).map(([uid, used]) => [
          uid,
          Object.fromEntries(used.flatMap((name) => (valueOf[name] === undefined ? [] : [[name, valueOf[name]]]))),
        ]),
      ),
    );
  fc.assert(
    fc.property(fc.array(worlds, { maxLength: 8 }), (sequence) => {
      const cursor = new FeedCursor();
      const reader = new Reader();
      for (const world of sequence) {
        reader.read(cursor.advance(stateOf(world)));
        assert.deepEqual(reader.world, { ...world });
        assert.equal(reader.secrets, new Set(Object.values(world).flatMap((each) => Object.keys(each))).size);
        assert.deepEqual(cursor.advance(stateOf(world)), [], "nothing new, nothing said");
      }
    }),
  );
});
