/* Which workloads' bodies the kernel reads: those that have a secret for one, as secrets and workloads come and go. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Book } from "../../src/agent/book.ts";
import { SecretTables } from "../../src/agent/secret-tables.ts";
import { openDataplane } from "../../src/dataplane/index.ts";
import { makePlaceholder, SecretValue } from "../../src/placeholder/index.ts";
import { parsePolicy } from "../../src/policy/policy.ts";

const binding = (name: string, slots: string, workloads: readonly number[]) => {
  const value = new SecretValue(`${name}-0123456789abcdefghij`);
  const policy = parsePolicy({ hosts: "a.test", in: slots });
  const lasting = { id: name, settings: { hosts: "a.test", in: slots } };
  return { name, value, placeholder: makePlaceholder(value), policy, roots: [], workloads, lasting };
};

test("bodies are read of workloads that have a secret for one", async () => {
  await using dataplane = await openDataplane({ objects: ["wire", "cipher/seal"] });
  const tables = new SecretTables(dataplane, new Book(undefined));
  const readers = () => [...dataplane.maps.body_readers.keys()].toSorted((a, b) => a - b);

  tables.add(binding("headers", "header", [1, 2]));
  assert.deepEqual(readers(), []);
  const first = tables.add(binding("first", "header,body", [1, 2]));
  const second = binding("second", "body", [2, 3]);
  const number = tables.put(second);
  assert.deepEqual(readers(), [1, 2, 3]);
  assert.equal(tables.put({ ...second, workloads: [2, 4] }), number, "the same secret for others");
  assert.deepEqual(readers(), [1, 2, 4]);
  tables.remove(first);
  assert.deepEqual(readers(), [2, 4]);
  tables.removeWorkload(4);
  assert.deepEqual(readers(), [2]);
  tables.remove(number);
  assert.deepEqual(readers(), []);
});
