/* The promise of a stack: secrets of every length over every suite, with uploads beside them. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { ServedRequest } from "../../src/lab/server.ts";
import { type Suite, suites as allSuites } from "../../src/lab/suites.ts";
import { count, header } from "./requests.ts";
import { noteServed } from "./served-stacks.ts";
import { clientCommand, type Stack } from "./stacks.ts";
import { host, makeSecret, otherHost, type World } from "./world.ts";

const values: Readonly<Record<string, string>> = {
  SHORT: makeSecret(8),
  USUAL: makeSecret(51),
  LONG: makeSecret(4096),
};
const names = Object.keys(values);
const requests = 2;
const big = 300 * 1024;
const bigSha256 = createHash("sha256").update(Buffer.alloc(big, "0123456789abcdef")).digest("hex");

/** 8, 51 and 4096 bytes, twice each, over every suite; 300 KB before and after. */
export async function speakMatrix(world: World, stack: Stack): Promise<void> {
  const secrets = Object.fromEntries(names.map((name) => [name, { value: values[name] ?? "", hosts: host }]));
  const suites = allSuites.filter(({ name }) => stack.lacks?.includes(name) !== true);
  const urls = suites.map((suite) => world.url(suite.name));
  const command = clientCommand(stack, { ca: world.authority.caFile, requests, big, names, urls });
  const outcome = await world.kloak({ secrets, command });
  const { requests: served, faults } = await world.server.take();
  const got = { arrived: arrivals(served, suites, stack), faults, stderr: outcome.stderr, status: outcome.status };
  assert.deepEqual(got, { arrived: wanted(stack, suites), faults: [], stderr: "", status: 0 });

  const audited = count(
    outcome.audit.map((record) => `${record.outcome} ${record.secret} ${record.tls.version} ${record.tls.cipher}`),
  );
  assert.deepEqual(audited, count(wantedAudit(suites)));
  for (const record of outcome.audit) {
    assert.equal(record.slot, "header:authorization");
    assert.equal(record.destination.host, host);
    assert.equal(record.destination.address, world.namespace.ipv4.inside);
  }
  noteServed(stack, outcome.audit);
}

/** A secret whose hosts are others: over every suite the placeholder arrives, and it is said why. */
export async function speakRefused(world: World, stack: Stack): Promise<void> {
  const urls = allSuites.map((suite) => world.url(suite.name));
  const outcome = await world.kloak({
    secrets: { SECRET: { value: values["USUAL"] ?? "", hosts: otherHost } },
    command: clientCommand(stack, { ca: world.authority.caFile, requests, names: ["SECRET"], urls }),
  });
  const { requests: served } = await world.server.take();
  const inert = served.filter((request) => header(request, "authorization").startsWith("Bearer kloak:"));
  assert.deepEqual(
    [inert.length, served.length],
    [requests * allSuites.length, requests * allSuites.length],
    outcome.stderr,
  );
  assert.deepEqual(count(outcome.audit.map(({ outcome: what, reason }) => `${what} ${reason}`)), {
    "refused host-not-allowed": requests * allSuites.length,
  });
}

/** 100 requests, one after the other, on a connection of each version of TLS. */
export async function speakHundred(world: World, stack: Stack): Promise<void> {
  const listeners = ["1.3 aes-256-gcm", "1.2 aes-128-gcm"];
  const urls = listeners.map((listener) => world.url(listener));
  const value = values["USUAL"] ?? "";
  const outcome = await world.kloak({
    secrets: { SECRET: { value, hosts: host } },
    command: clientCommand(stack, { ca: world.authority.caFile, requests: 100, names: ["SECRET"], urls }),
  });
  const { requests: served, faults } = await world.server.take();
  assert.deepEqual({ faults, stderr: outcome.stderr, status: outcome.status }, { faults: [], stderr: "", status: 0 });
  const good = served.filter((request) => header(request, "authorization") === `Bearer ${value}`);
  assert.deepEqual([good.length, served.length], [200, 200]);
  const connections = new Set(served.map(({ listener, connection }) => `${listener} ${connection}`)).size;
  assert.ok(stack.keepsAlive === "mostly" ? connections < 20 : connections === 2, `${connections} connections`);
  assert.deepEqual(count(outcome.audit.map(({ outcome: what }) => what)), { substituted: 200 });
}

/** What arrived, one line for each cell, so that a failure shows the whole pattern at once. */
function arrivals(served: readonly ServedRequest[], suites: readonly Suite[], stack: Stack): Record<string, string> {
  const cells: Record<string, string> = {};
  for (const suite of suites) {
    const here = served.filter(({ listener }) => listener === suite.name);
    const connections = stack.keepsAlive === "mostly" ? 1 : new Set(here.map(({ connection }) => connection)).size;
    const uploads = here.filter(({ path }) => path.endsWith("/big"));
    const whole = uploads.filter(({ bodySha256 }) => bodySha256 === bigSha256).length;
    cells[suite.name] = `${connections} connections, ${whole} of ${uploads.length} uploads whole`;
    for (const name of names) {
      const headers = here
        .filter(({ path }) => path.endsWith(`/${name}`))
        .map((request) => header(request, "authorization"));
      const good = headers.filter((value) => value === `Bearer ${values[name]}`).length;
      const inert = headers.filter((value) => value.includes("kloak:")).length;
      cells[`${suite.name} ${name}`] = `${good} of ${headers.length} replaced, ${inert} inert`;
    }
  }
  return cells;
}

function wanted(stack: Stack, suites: readonly Suite[]): Record<string, string> {
  const cells: Record<string, string> = {};
  const connections = stack.keepsAlive ? 1 : names.length * requests + 2;
  for (const suite of suites) {
    cells[suite.name] = `${connections} connections, 2 of 2 uploads whole`;
    for (const name of names) cells[`${suite.name} ${name}`] = `${requests} of ${requests} replaced, 0 inert`;
  }
  return cells;
}

function wantedAudit(suites: readonly Suite[]): string[] {
  return suites.flatMap(({ audit }) =>
    names.flatMap((name) =>
      Array.from({ length: requests }, () => `substituted ${name} ${audit.version} ${audit.cipher}`),
    ),
  );
}
