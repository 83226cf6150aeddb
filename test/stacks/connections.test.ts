/* The promise: load changes nothing: each request of many connections gets its secret and its audit record. Needs root. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { suites } from "../../src/lab/suites.ts";
import { count, header } from "../support/requests.ts";
import { host, makeSecret, root, World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());
const value = makeSecret(51);
const secrets = { SECRET: { value, hosts: host } };
const many = join(root, "test/support/clients/many.py");

for (const listener of ["1.3 aes-256-gcm", "1.2 chacha20-poly1305"]) {
  test(`10000 requests over 64 connections of one process, ${listener}`, async () => {
    const command = ["python3", many, world.authority.caFile, "64", "10000", "SECRET", world.url(listener)];
    const outcome = await world.kloak({ secrets, command });
    const { requests, faults } = await world.server.take();
    assert.deepEqual({ faults, stderr: outcome.stderr, status: outcome.status }, { faults: [], stderr: "", status: 0 });
    assert.equal(requests.filter((request) => header(request, "authorization") === `Bearer ${value}`).length, 10_000);
    assert.equal(new Set(requests.map(({ path }) => path)).size, 10_000);
    assert.equal(new Set(requests.map(({ connection }) => connection)).size, 64);
    assert.deepEqual(count(outcome.audit.map(({ outcome: what }) => what)), { substituted: 10_000 });
  });
}

test("32 processes at once, each its own connection", async () => {
  const urls = suites.map((suite) => world.url(suite.name)).join(" ");
  const script = `
    for i in $(seq 32); do
      for url in $1; do echo "$url/$i"; done
    done | xargs -P 32 -n 1 curl -sSf -o /dev/null --cacert "$2" -H "Authorization: Bearer $SECRET"`;
  const outcome = await world.kloak({ secrets, command: ["sh", "-c", script, "sh", urls, world.authority.caFile] });
  const { requests, faults } = await world.server.take();
  const wanted = 32 * suites.length;
  assert.deepEqual({ faults, stderr: outcome.stderr, status: outcome.status }, { faults: [], stderr: "", status: 0 });
  assert.equal(requests.filter((request) => header(request, "authorization") === `Bearer ${value}`).length, wanted);
  assert.deepEqual(count(outcome.audit.map(({ outcome: what }) => what)), { substituted: wanted });
});
