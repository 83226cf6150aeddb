/*
 * The promise: metadata of a call is a header like any other, whatever gRPC it leaves by. Each library calls a server that
 * speaks gRPC's protocol. Fetches what it needs from npm, PyPI and the Go module proxy once. Needs root.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, test } from "node:test";
import { count, header } from "../support/requests.ts";
import { noteServed } from "../support/served-stacks.ts";
import { clientCommand, grpcStacks } from "../support/stacks.ts";
import { host, makeSecret, otherHost, World } from "../support/world.ts";

const world = await World.create(({ good }) => [
  { name: "1.3", kind: "http2", version: "TLSv1.3", certificate: good },
  { name: "1.2", kind: "http2", version: "TLSv1.2", certificate: good },
]);
after(() => world.close());

const listeners = ["1.3", "1.2"];
const values = { SHORT: makeSecret(8), USUAL: makeSecret(51), LONG: makeSecret(4096) };
const names = Object.keys(values) as (keyof typeof values)[];
const requests = 100;
const big = 300 * 1024;

/** A message as it is in the body: not compressed, its length, itself (gRPC over HTTP/2, "Length-Prefixed-Message"). */
function sha256OfMessage(message: Buffer): string {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return createHash("sha256").update(prefix).update(message).digest("hex");
}
const bigSha256 = sha256OfMessage(Buffer.alloc(big, "0123456789abcdef"));

/** What Node's server says when gRPC-Go closes a connection, without Kloak too. */
const closing = "Protocol error (ERR_HTTP2_ERROR)";

for (const stack of grpcStacks()) {
  for (const name of ["authorization", "x-api-key"]) {
    test(`${stack.name}: ${requests} calls with each of 3 secrets in ${name}, messages of 300 KB unharmed`, async () => {
      const secrets = Object.fromEntries(names.map((each) => [each, { value: values[each], hosts: host }]));
      const urls = listeners.map((listener) => world.url(listener));
      const command = clientCommand(stack, { ca: world.authority.caFile, requests, big, names, urls });
      const outcome = await world.kloak({ secrets, command, env: { HEADER: name } });
      const { requests: served, faults: met } = await world.server.take();
      const faults = met.filter((fault) => stack.name !== "gRPC-Go" || !fault.endsWith(closing));
      const arrived = count(
        served.map((request) => {
          const method = request.path.slice("/test.Echo/".length);
          if (method === "big") return `${request.listener} big ${request.bodySha256 === bigSha256}`;
          return `${request.listener} ${header(request, name) === `Bearer ${values[method as keyof typeof values]}`}`;
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
      for (const record of outcome.audit)
        assert.deepEqual(
          [record.outcome, record.protocol, record.slot],
          ["substituted", "http/2", `header:${name}`],
          record.detail ?? "",
        );
      noteServed(stack, outcome.audit);
    });
  }

  test(`${stack.name}: a host that the secret does not list gets the placeholder`, async () => {
    const urls = [world.url("1.3", otherHost)];
    const command = clientCommand(stack, { ca: world.authority.caFile, requests: 2, names: ["USUAL"], urls });
    const secrets = { USUAL: { value: values.USUAL, hosts: host } };
    const outcome = await world.kloak({ secrets, command });
    const { requests: served } = await world.server.take();
    assert.deepEqual(
      served.map((request) => header(request, "authorization").startsWith("Bearer kloak:")),
      [true, true],
      outcome.stderr,
    );
    assert.ok(outcome.audit.length > 0);
    for (const record of outcome.audit)
      assert.deepEqual([record.outcome, record.reason], ["refused", "host-not-allowed"]);
  });
}
