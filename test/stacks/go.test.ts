/* The promises, kept by a program that Go's own compiler has made: no library, no symbols. Needs root. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { ServedRequest } from "../../src/lab/server.ts";
import { suites } from "../../src/lab/suites.ts";
import { goProgram } from "../support/go.ts";
import { speakMatrix } from "../support/matrix.ts";
import { count, header } from "../support/requests.ts";
import { host, makeSecret, otherHost, World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());
const ca = world.authority.caFile;
const value = makeSecret(51);
const secrets = { SECRET: { value, hosts: host } };
const client = goProgram({ program: "go", stripped: true });
const load = goProgram({ program: "go-load" });

test("go: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed", () =>
  speakMatrix(world, { name: "go", command: [client], keepsAlive: true, executable: client }));

test("go: a host that the secret does not list gets the placeholder", async () => {
  const urls = suites.map((suite) => world.url(suite.name));
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: otherHost } },
    command: [client, ca, "2", "0", "SECRET", ...urls],
  });
  const { requests } = await world.server.take();
  assert.deepEqual(arrived(requests), { placeholder: 2 * suites.length }, outcome.stderr);
  assert.deepEqual(outcomes(outcome.audit), { "refused host-not-allowed": 2 * suites.length });
});

test("go: 100 requests on one connection", async () => {
  const urls = suites.map((suite) => world.url(suite.name));
  const outcome = await world.kloak({ secrets, command: [client, ca, "100", "0", "SECRET", ...urls] });
  const { requests, faults } = await world.server.take();
  assert.deepEqual({ faults, stderr: outcome.stderr, status: outcome.status }, { faults: [], stderr: "", status: 0 });
  assert.deepEqual(arrived(requests), { secret: 100 * suites.length });
  assert.equal(new Set(requests.map(({ listener, connection }) => `${listener} ${connection}`)).size, suites.length);
  assert.deepEqual(outcomes(outcome.audit), { substituted: 100 * suites.length });
});

for (const listener of ["1.3 aes-128-gcm", "1.3 chacha20-poly1305", "1.2 aes-256-gcm"]) {
  test(`goroutines that wander between threads, stacks that grow, a collector that never rests: ${listener}`, async () => {
    const command = [load, "many", ca, "32", "3000", "SECRET", world.url(listener)];
    const outcome = await world.kloak({ secrets, command });
    const { requests, faults } = await world.server.take();
    assert.deepEqual({ faults, stderr: outcome.stderr, status: outcome.status }, { faults: [], stderr: "", status: 0 });
    assert.deepEqual(arrived(requests), { secret: 3000 });
    assert.equal(new Set(requests.map(({ path }) => path)).size, 3000);
    assert.deepEqual(outcomes(outcome.audit), { substituted: 3000 });
  });
}

// The first records of a connection hold a little less than a TCP segment, so a header block may be cut anywhere.
for (const listener of ["1.3 aes-256-gcm", "1.2 aes-128-gcm", "1.3 chacha20-poly1305"]) {
  test(`a placeholder that crypto/tls cuts in two stays one, and it is said: ${listener}`, async () => {
    const [first, last, step] = [1000, 1180, 3];
    const command = [load, "fill", ca, "SECRET", world.url(listener), `${first}`, `${last}`, `${step}`];
    const outcome = await world.kloak({ secrets, command });
    const { requests, faults } = await world.server.take();
    assert.deepEqual({ faults, status: outcome.status }, { faults: [], status: 0 }, outcome.stderr);
    const { secret = 0, placeholder = 0, ...neither } = arrived(requests);
    assert.deepEqual(neither, {}, "never half of it");
    assert.equal(secret + placeholder, (last - first) / step + 1);
    assert.ok(secret > placeholder && placeholder > 51 / step - 3, `${placeholder} were cut`);
    assert.deepEqual(outcomes(outcome.audit), { substituted: secret, "refused split-over-records": placeholder });
  });
}

test("code that is not heard is told: built without assembly", async () => {
  const pure = goProgram({ program: "go", tags: "purego" });
  const urls = [world.url("1.3 aes-128-gcm")];
  const outcome = await world.kloak({ secrets, command: [pure, ca, "1", "0", "SECRET", ...urls] });
  const { requests } = await world.server.take();
  assert.deepEqual(arrived(requests), { placeholder: 1 });
  assert.equal(outcome.status, 0);
  assert.deepEqual(outcomes(outcome.audit), { unprotected: 1 });
  assert.match(outcome.stderr, /is not hooked \(no function \*crypto\/aes\.gcmAesEnc .*purego/);
});

/** How many requests carried what. */
function arrived(requests: readonly ServedRequest[]): Record<string, number> {
  return count(
    requests.map((request) => {
      const text = header(request, "authorization");
      return text === `Bearer ${value}` ? "secret" : /^Bearer .*kloak:/.test(text) ? "placeholder" : text;
    }),
  );
}

function outcomes(
  audit: readonly { readonly outcome: string; readonly reason?: string | null }[],
): Record<string, number> {
  return count(audit.map(({ outcome, reason }) => (typeof reason !== "string" ? outcome : `${outcome} ${reason}`)));
}
