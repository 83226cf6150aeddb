/* The promises, kept by JVMs into which Kloak's agent is loaded: JSSE lies in no file that could be hooked. Needs root. */
import assert from "node:assert/strict";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { suites } from "../../src/lab/suites.ts";
import { agent, javaProgram, jdkStack } from "../support/java.ts";
import { speakMatrix } from "../support/matrix.ts";
import { count, header } from "../support/requests.ts";
import { clientCommand } from "../support/stacks.ts";
import { host, makeSecret, otherHost, World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());
const value = makeSecret(51);
const client = jdkStack("http1");
const urls = suites.map((suite) => world.url(suite.name));
const args = (requests: number) => ({ ca: world.authority.caFile, requests, names: ["SECRET"], urls });
/** The client in a JVM that is not told to load the agent. */
const bare = clientCommand(
  { ...client, command: client.command.filter((word) => !word.startsWith("-javaagent")) },
  args(1),
);

async function ask(command: readonly string[], hosts: string, options: readonly string[] = []) {
  const outcome = await world.kloak({ secrets: { SECRET: { value, hosts } }, command, options });
  const { requests, faults } = await world.server.take();
  assert.deepEqual({ faults, status: outcome.status }, { faults: [], status: 0 }, outcome.stderr);
  const arrived = requests.map((request) => {
    const sent = header(request, "authorization");
    return {
      request,
      what: sent === `Bearer ${value}` ? "secret" : sent.includes("kloak:") ? "placeholder" : "neither",
    };
  });
  return {
    stderr: outcome.stderr,
    connections: new Set(requests.map(({ listener, connection }) => `${listener} ${connection}`)).size,
    byPath: arrived.map(({ request, what }) => `${request.path} ${what}`),
    arrived: count(arrived.map(({ what }) => what)),
    audited: count(outcome.audit.map(({ outcome: what, reason }) => (reason === null ? what : `${what} ${reason}`))),
  };
}

for (const kind of ["http1", "urlconnection"] as const) {
  test(`java ${kind}: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed`, () =>
    speakMatrix(world, jdkStack(kind)));
}

test("java http1: a host that the secret does not list gets the placeholder", async () => {
  const { arrived, audited } = await ask(clientCommand(client, args(2)), otherHost);
  const wanted = 2 * suites.length;
  assert.deepEqual([arrived, audited], [{ placeholder: wanted }, { "refused host-not-allowed": wanted }]);
});

// Their lengths go through all that there are in a block: JSSE pads by one.
test("java http1: 100 requests on one connection", async () => {
  const { arrived, audited, connections } = await ask(clientCommand(client, args(100)), host);
  const wanted = 100 * suites.length;
  assert.deepEqual([arrived, audited, connections], [{ secret: wanted }, { substituted: wanted }, suites.length]);
});

for (const listener of ["1.3 aes-128-gcm", "1.2 chacha20-poly1305"]) {
  test(`java: 32 threads and a collector that moves things all the time: ${listener}`, async () => {
    const [java = "", ...load] = javaProgram("JdkLoad");
    const small = ["-XX:+UseSerialGC", "-Xmn1m"];
    const command = [
      java,
      `-javaagent:${agent}`,
      ...small,
      ...load,
      world.authority.caFile,
      "32",
      "1000",
      world.url(listener),
    ];
    const { arrived, audited, connections } = await ask(command, host);
    assert.deepEqual([arrived, audited, connections], [{ secret: 1000 }, { substituted: 1000 }, 32]);
  });
}

test("java: `--java` loads the agent into whatever JVM the command starts", async () => {
  const { arrived, audited, stderr } = await ask(["sh", "-c", '"$0" "$@"; exit $?', ...bare], host, ["--java"]);
  assert.deepEqual([arrived, audited], [{ secret: suites.length }, { substituted: suites.length }]);
  assert.match(stderr, /^Picked up JAVA_TOOL_OPTIONS: -javaagent:"\S+kloak-java\.jar"\n$/);
});

test("java: into a JVM that runs the agent is loaded for the connections to come", async () => {
  const script = `
    agent=$1
    shift
    folder=$(mktemp -d)
    mkfifo "$folder/in" "$folder/out"
    "$@" <"$folder/in" >"$folder/out" &
    exec 3>"$folder/in" 4<"$folder/out"
    rm -r "$folder"
    read -r ready <&4
    jcmd $! JVMTI.agent_load "$agent" >&2
    echo go >&3
    wait $!`;
  const program = javaProgram("JdkAttached");
  const command = ["sh", "-c", script, "sh", agent, ...program, world.authority.caFile, world.url("1.3 aes-256-gcm")];
  const { byPath, audited } = await ask(command, host);
  assert.deepEqual(byPath, ["/before placeholder", "/same placeholder", "/new secret"]);
  // That JVM, and jcmd's own.
  assert.deepEqual(audited, { unprotected: 2, "refused unproven-flow": 1, substituted: 1 });
});

test("java: an agent that cannot do its work says so, and the program goes on", async () => {
  const alone = join(world.directory, "kloak-java.jar"); // without the library beside it
  copyFileSync(agent, alone);
  const [java = "", ...rest] = bare;
  const { arrived, stderr } = await ask([java, `-javaagent:${alone}`, ...rest], host);
  assert.deepEqual(arrived, { placeholder: suites.length });
  assert.match(stderr, /^kloak: Java's TLS is not heard, .*libkloak-java\.so/m);
});

test("java: without the agent placeholders go out as they are, and it is said what would change that", async () => {
  const { arrived, audited, stderr } = await ask(bare, host);
  assert.deepEqual([arrived, audited], [{ placeholder: suites.length }, { unprotected: 1 }]);
  assert.match(stderr, /libjvm\.so is not hooked .*`kloak run --java`/);
});
