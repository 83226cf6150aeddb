/*
 * The promise: over HTTP/2 a secret arrives with every request, whether its header is spelled out each time or sent by its
 * index in the table that both ends keep, with streams interleaved and uploads beside them. Needs root.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, test } from "node:test";
import { jdkStack } from "../support/java.ts";
import { count, header } from "../support/requests.ts";
import { noteServed } from "../support/served-stacks.ts";
import { clientCommand, http2Stacks } from "../support/stacks.ts";
import { host, makeSecret, otherHost, World } from "../support/world.ts";

const world = await World.create((certificates) => [
  { name: "1.3", kind: "http2", version: "TLSv1.3", certificate: certificates.good },
  { name: "1.2", kind: "http2", version: "TLSv1.2", certificate: certificates.good },
  { name: "no table", kind: "http2", certificate: certificates.good, headerTableSize: 0 },
  { name: "large table", kind: "http2", certificate: certificates.good, headerTableSize: 65536 },
]);
after(() => world.close());

const values: Readonly<Record<string, string>> = {
  SHORT: makeSecret(8),
  USUAL: makeSecret(51),
  LONG: makeSecret(4096),
};
const names = Object.keys(values);
const requests = 32; // those of a name at once, with Node
const big = 300 * 1024;
const bigSha256 = createHash("sha256").update(Buffer.alloc(big, "0123456789abcdef")).digest("hex");

for (const stack of [...http2Stacks, jdkStack("http2")]) {
  // Clients put the first into no table, and the second into it.
  for (const [name, listeners] of [
    ["authorization", ["1.3", "1.2"]],
    ["x-api-key", ["1.3", "no table", "large table"]],
  ] as const) {
    test(`${stack.name}: ${name}, ${requests * names.length} requests a connection, uploads unharmed`, async () => {
      const secrets = Object.fromEntries(names.map((each) => [each, { value: values[each] ?? "", hosts: host }]));
      const urls = listeners.map((listener) => world.url(listener));
      const command = clientCommand(stack, { ca: world.authority.caFile, requests, big, names, urls });
      const outcome = await world.kloak({ secrets, command, env: { HEADER: name } });
      const { requests: served, faults } = await world.server.take();
      const arrived = count(
        served.map((request) => {
          if (request.path === "/big") return `${request.listener} big ${request.bodySha256 === bigSha256}`;
          return `${request.listener} ${header(request, name) === `Bearer ${values[request.path.slice(1)]}`}`;
        }),
      );
      const wanted = Object.fromEntries(
        listeners.flatMap((each) => [
          [`${each} big true`, 2],
          [`${each} true`, requests * names.length],
        ]),
      );
      assert.deepEqual(
        { arrived, faults, stderr: outcome.stderr, status: outcome.status },
        { arrived: wanted, faults: [], stderr: "", status: 0 },
      );
      assert.equal(new Set(served.map(({ connection }) => connection)).size, listeners.length);
      noteServed(stack, outcome.audit);
      const lines = new Set(
        outcome.audit.map(({ outcome, protocol, encoding, slot }) => `${outcome} ${protocol} ${encoding} ${slot}`),
      );
      assert.ok(lines.delete(`substituted http/2 huffman header:${name}`));
      lines.delete(`substituted http/2 raw header:${name}`); // where the code would be longer than the text
      assert.deepEqual([...lines], []);
      if (name === "authorization") assert.equal(outcome.audit.length, listeners.length * requests * names.length);
    });
  }

  test(`${stack.name}: a host that the secret does not list`, async () => {
    const urls = [world.url("1.3", otherHost)];
    const command = clientCommand(stack, { ca: world.authority.caFile, requests: 2, names: ["USUAL"], urls });
    const secrets = { USUAL: { value: values.USUAL ?? "", hosts: host } };
    const outcome = await world.kloak({ secrets, command });
    const { requests: served } = await world.server.take();
    assert.deepEqual(
      served.map((request) => header(request, "authorization").startsWith("Bearer kloak:")),
      [true, true],
    );
    assert.ok(outcome.audit.length > 0);
    for (const record of outcome.audit) {
      assert.deepEqual(
        [record.outcome, record.reason, record.protocol, record.encoding],
        ["refused", "host-not-allowed", "http/2", "huffman"],
      );
    }
  });
}
