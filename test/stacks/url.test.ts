/*
 * The promise: a secret in a query or a path arrives as itself, however the client writes its placeholder's colon. Needs
 * root.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { clientsWithUrls } from "../support/urls.ts";
import { count } from "../support/requests.ts";
import { host, makeSecret, World } from "../support/world.ts";

const world = await World.create(({ good }) => [
  { name: "http/1.1", certificate: good },
  { name: "http/2", kind: "http2", certificate: good },
]);
after(() => world.close());

/** A letter more than the marker wants, a dash, an underscore: as API keys in URLs look. */
const value = `AIza-${makeSecret(32)}_x`;

for (const client of clientsWithUrls) {
  const { name, listener, encoding } = client;
  for (const slot of ["query", "path"] as const) {
    test(`${name}: in the ${slot}`, async () => {
      const outcome = await world.kloak({
        secrets: { KEY: { value, hosts: host, in: slot } },
        command: client.command(world.url(listener), slot),
        env: { CURL_CA_BUNDLE: world.authority.caFile, NODE_EXTRA_CA_CERTS: world.authority.caFile },
      });
      const { requests, faults } = await world.server.take();
      const got = {
        faults,
        stderr: outcome.stderr,
        status: outcome.status,
        keys: requests.map(({ path }) => keyIn(path)),
      };
      assert.deepEqual(got, { faults: [], stderr: "", status: 0, keys: [value, value] });
      const records = outcome.audit.map((record) => `${record.outcome} ${record.slot} ${record.encoding}`);
      assert.deepEqual(count(records), { [`substituted ${slot} ${encoding}`]: 2 });
    });
  }
}

/** As a server reads it. */
function keyIn(path: string): string | null {
  const url = new URL(path, "https://server.test");
  return url.searchParams.get("key") ?? decodeURIComponent(url.pathname.split("/").at(-1) ?? "");
}

test("a value that a URL does not hold as it is is refused before anything starts", async () => {
  const outcome = await world.kloak({
    secrets: { KEY: { value: "p+ss/word&more", hosts: host, in: "query" } },
    command: ["true"],
  });
  assert.equal(outcome.status, 125);
  assert.match(
    outcome.stderr,
    /KEY .*: the value has characters that a URL or a body does not hold as they are; take query, path and body out/,
  );
});
