/*
 * The promise: a program that leaves TLS to a library that is heard needs nothing of its own: other languages, and proxies
 * that speak TLS for others. Installs Debian's packages, and a runtime of .NET from PyPI, once. Needs root.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { speakMatrix } from "../support/matrix.ts";
import { installPrograms, programs } from "../support/programs.ts";
import { count, header } from "../support/requests.ts";
import { clientCommand, type Stack, stacks } from "../support/stacks.ts";
import { host, makeSecret, otherHost, World } from "../support/world.ts";

installPrograms();
const world = await World.create();
after(() => world.close());
const ca = world.authority.caFile;
const value = makeSecret(51);
const listeners = ["1.3 aes-256-gcm", "1.2 aes-128-gcm"];
const urls = listeners.map((listener) => world.url(listener));

async function ask(stack: Stack, hosts: string, requests: number) {
  const command = clientCommand(stack, { ca, requests, names: ["SECRET"], urls });
  const outcome = await world.kloak({ secrets: { SECRET: { value, hosts } }, command });
  const { requests: served, faults } = await world.server.take();
  assert.deepEqual({ faults, status: outcome.status }, { faults: [], status: 0 }, outcome.stderr);
  return {
    connections: new Set(served.map(({ connection }) => connection)).size,
    arrived: count(
      served.map((request) => {
        const sent = header(request, "authorization");
        return sent === `Bearer ${value}` ? "secret" : sent.includes("kloak:") ? "placeholder" : "neither";
      }),
    ),
    audited: count(outcome.audit.map(({ outcome: what, reason }) => (reason === null ? what : `${what} ${reason}`))),
  };
}

for (const stack of programs()) {
  test(`${stack.name}: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed`, () =>
    speakMatrix(world, stack));
}

for (const stack of [...programs(), ...stacks]) {
  test(`${stack.name}: a host that the secret does not list gets the placeholder`, async () => {
    const { arrived, audited } = await ask(stack, otherHost, 1);
    assert.deepEqual(arrived, { placeholder: listeners.length });
    assert.deepEqual(audited, { "refused host-not-allowed": listeners.length });
  });

  if (!stack.keepsAlive) continue;
  test(`${stack.name}: 100 requests on one connection`, async () => {
    const wanted = 100 * listeners.length;
    const { arrived, audited, connections } = await ask(stack, host, 100);
    assert.deepEqual([arrived, audited, connections], [{ secret: wanted }, { substituted: wanted }, listeners.length]);
  });
}
