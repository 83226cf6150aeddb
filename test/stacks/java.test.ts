/* The promises, kept by JVMs into which Kloak's agent is loaded: JSSE lies in no file that could be hooked. Needs root. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { suites } from "../../src/lab/suites.ts";
import { agent, javaProgram } from "../support/java.ts";
import { speakMatrix } from "../support/matrix.ts";
import { count, header } from "../support/requests.ts";
import { clientCommand, type Stack } from "../support/stacks.ts";
import { host, makeSecret, otherHost, World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());
const value = makeSecret(51);
const [java = "", ...program] = javaProgram("JdkClient");
const stack = (kind: string): Stack => ({
  name: `java ${kind}`,
  command: [java, `-javaagent:${agent}`, ...program, kind],
  keepsAlive: true,
});

for (const kind of ["http1", "urlconnection"]) {
  test(`java ${kind}: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed`, () =>
    speakMatrix(world, stack(kind)));
}

async function ask(command: readonly string[], hosts: string, options: readonly string[] = []) {
  const outcome = await world.kloak({ secrets: { SECRET: { value, hosts } }, command, options });
  const { requests, faults } = await world.server.take();
  assert.deepEqual({ faults, status: outcome.status }, { faults: [], status: 0 }, outcome.stderr);
  return {
    stderr: outcome.stderr,
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

const urls = suites.map((suite) => world.url(suite.name));
const args = (requests: number) => ({ ca: world.authority.caFile, requests, names: ["SECRET"], urls });

test("java: a host that the secret does not list gets the placeholder", async () => {
  const { arrived, audited } = await ask(clientCommand(stack("http1"), args(2)), otherHost);
  const wanted = 2 * suites.length;
  assert.deepEqual([arrived, audited], [{ placeholder: wanted }, { "refused host-not-allowed": wanted }]);
});

test("java: 100 requests on one connection", async () => {
  const { arrived, audited, connections } = await ask(clientCommand(stack("http1"), args(100)), host);
  const wanted = 100 * suites.length;
  assert.deepEqual([arrived, audited, connections], [{ secret: wanted }, { substituted: wanted }, suites.length]);
});

test("java: `--java` loads the agent into whatever JVM the command starts", async () => {
  const command = [
    "sh",
    "-c",
    '"$0" "$@"; exit $?',
    ...clientCommand({ ...stack(""), command: [java, ...program, "http1"] }, args(1)),
  ];
  const { arrived, audited, stderr } = await ask(command, host, ["--java"]);
  assert.deepEqual([arrived, audited], [{ secret: suites.length }, { substituted: suites.length }]);
  assert.match(stderr, /^Picked up JAVA_TOOL_OPTIONS: -javaagent:"\S+kloak-java\.jar"\n$/);
});

test("java: without the agent placeholders go out as they are, and it is said what would change that", async () => {
  const command = clientCommand({ ...stack(""), command: [java, ...program, "http1"] }, args(1));
  const { arrived, audited, stderr } = await ask(command, host);
  assert.deepEqual([arrived, audited], [{ placeholder: suites.length }, { unprotected: 1 }]);
  assert.match(stderr, /libjvm\.so is not hooked .*`kloak run --java`/);
});
