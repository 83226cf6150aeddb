/*
 * The promise: the agent fits JVMs from 17 on, and whatever speaks TLS by their JSSE is heard. Fetches JVMs from PyPI and
 * clients from Maven once. Needs root.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { agent, jdkStack, jvmOfVersion, libraryStack } from "../support/java.ts";
import { speakMatrix } from "../support/matrix.ts";
import { count, header } from "../support/requests.ts";
import { clientCommand } from "../support/stacks.ts";
import { host, makeSecret, otherHost, World } from "../support/world.ts";

const world = await World.create((certificates) => [{ name: "http/2", kind: "http2", certificate: certificates.good }]);
after(() => world.close());
const value = makeSecret(51);
const listeners = ["1.3 aes-256-gcm", "1.2 aes-128-gcm"];

for (const version of ["17.0.2.1", "21.0.8.2", "25.0.2.1"]) {
  test(`java ${version}: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed`, () =>
    speakMatrix(world, jdkStack("http1", jvmOfVersion(version))));
}

test("java 11: too old, it starts with the agent all the same, and it is said", async () => {
  const jvm = jvmOfVersion("11.0.13.1");
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: host } },
    command: [jvm, `-javaagent:${agent}`, "--version"],
  });
  assert.equal(outcome.status, 0, outcome.stderr);
  assert.match(outcome.stderr, /^kloak: Java's TLS is not heard, .*this is Java 11/m);
});

async function ask(kind: Parameters<typeof libraryStack>[0], hosts: string, listeners: readonly string[]) {
  const urls = listeners.map((listener) => world.url(listener));
  const asked = { ca: world.authority.caFile, requests: 100, names: ["SECRET"], urls };
  const command = clientCommand(libraryStack(kind), asked);
  const outcome = await world.kloak({ secrets: { SECRET: { value, hosts } }, command });
  const { requests, faults } = await world.server.take();
  assert.deepEqual({ faults, status: outcome.status }, { faults: [], status: 0 }, outcome.stderr);
  return {
    connections: new Set(requests.map(({ listener, connection }) => `${listener} ${connection}`)).size,
    arrived: count(
      requests.map((request) => {
        const sent = header(request, "authorization");
        return sent === `Bearer ${value}` ? "secret" : sent.includes("kloak:") ? "placeholder" : "neither";
      }),
    ),
    audited: count(outcome.audit.map(({ outcome: what, reason }) => (reason === null ? what : `${what} ${reason}`))),
  };
}

for (const kind of ["okhttp", "apache", "netty", "netty-tcnative", "okhttp-conscrypt"] as const) {
  test(`java ${kind}: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed`, () =>
    speakMatrix(world, libraryStack(kind)));

  test(`java ${kind}: 100 requests on one connection`, async () => {
    const wanted = { connections: 2, arrived: { secret: 200 }, audited: { substituted: 200 } };
    assert.deepEqual(await ask(kind, host, listeners), wanted);
  });

  test(`java ${kind}: a host that the secret does not list gets the placeholder`, async () => {
    const wanted = { connections: 2, arrived: { placeholder: 200 }, audited: { "refused host-not-allowed": 200 } };
    assert.deepEqual(await ask(kind, otherHost, listeners), wanted);
  });
}

test("java okhttp over HTTP/2: 100 requests on one connection", async () => {
  const { connections, arrived, audited } = await ask("okhttp-http2", host, ["http/2"]);
  assert.deepEqual([connections, arrived, Object.keys(audited)], [1, { secret: 100 }, ["substituted"]]);
});
