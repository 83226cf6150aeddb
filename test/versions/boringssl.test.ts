/*
 * The promise: no version of BoringSSL or AWS-LC, and no program that has it inside, needs a table of its own. Fetches what
 * it needs from npm, PyPI and Debian once, 600 MB. Needs root.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { speakHundred, speakMatrix, speakRefused } from "../support/matrix.ts";
import { count, header } from "../support/requests.ts";
import { noteServed } from "../support/served-stacks.ts";
import { chromiumStack, clientCommand, runtimeStack, wheelStack } from "../support/stacks.ts";
import { host, makeSecret, World } from "../support/world.ts";

const world = await World.create(({ good }) => [{ name: "http/2", kind: "http2", certificate: good }]);
after(() => world.close());

const others = [runtimeStack("bun"), runtimeStack("deno"), wheelStack("rnet"), wheelStack("awscrt")];
for (const stack of [...others, chromiumStack()]) {
  test(`${stack.name}: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed`, () =>
    speakMatrix(world, stack));
  test(`${stack.name}: a host that the secret does not list gets the placeholder`, () => speakRefused(world, stack));
  test(`${stack.name}: 100 requests on one connection`, () => speakHundred(world, stack));
}

test("chromium over HTTP/2: 100 requests, the secret in the table of both ends", async () => {
  const value = makeSecret(51);
  const stack = chromiumStack();
  const asked = { ca: world.authority.caFile, requests: 100, names: ["SECRET"], urls: [world.url("http/2")] };
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: host } },
    command: clientCommand(stack, asked),
    env: { HEADER: "x-api-key" },
  });
  const { requests, faults } = await world.server.take();
  assert.deepEqual({ faults, stderr: outcome.stderr, status: outcome.status }, { faults: [], stderr: "", status: 0 });
  const arrived = count(requests.map((request) => `${header(request, "x-api-key") === `Bearer ${value}`}`));
  assert.deepEqual(arrived, { true: 100 });
  assert.deepEqual(
    [...new Set(outcome.audit.map(({ outcome: what, protocol }) => `${what} ${protocol}`))],
    ["substituted http/2"],
  );
  noteServed(stack, outcome.audit);
});
