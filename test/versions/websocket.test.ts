/*
 * The promise: a WebSocket opens with the secret in its handshake, and its messages are nobody's business. Both ends are
 * libraries from npm and PyPI, fetched once. Needs root.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { npmPackages, pythonPackages } from "../support/packages.ts";
import { count } from "../support/requests.ts";
import { host, makeSecret, otherHost, root, World } from "../support/world.ts";

interface Handshake {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}

const folder = join(root, "test/support/clients/websocket");
const node = npmPackages("websocket-node", folder);
const python = join(pythonPackages("websocket-python", join(folder, "requirements.txt")), "bin/python");
const clients = {
  ws: [process.execPath, join(node, "node.mjs")],
  websockets: [python, join(folder, "python.py")],
};

const world = await World.create();
const { keyFile, certificateFile } = world.authority.issue("websocket", { dns: [host, otherHost] });
const [program = "", ...args] = world.namespace.within([
  process.execPath,
  join(node, "server.mjs"),
  keyFile,
  certificateFile,
]);
const server = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
const lines = createInterface({ input: server.stdout });
const [told] = (await once(lines, "line")) as [string];
const { port } = JSON.parse(told) as { port: number };
const handshakes: Handshake[] = [];
lines.on("line", (line) => handshakes.push(JSON.parse(line) as Handshake));
after(async () => {
  server.stdin.end();
  await once(server, "close");
  await world.close();
});

const value = makeSecret(51);

async function talk(client: keyof typeof clients, secret: object, path: string) {
  handshakes.length = 0;
  const outcome = await world.kloak({
    secrets: { TOKEN: { value, hosts: host, ...secret } },
    command: [...clients[client], world.authority.caFile, `wss://${host}:${port}${path}`],
  });
  assert.equal(outcome.status, 0, outcome.stderr);
  const [handshake, ...more] = handshakes;
  assert.ok(handshake !== undefined && more.length === 0);
  return { handshake, records: count(outcome.audit.map((each) => `${each.outcome} ${each.reason ?? each.slot}`)) };
}

for (const client of ["ws", "websockets"] as const) {
  test(`${client}: the handshake's header, then messages that come back as they were`, async () => {
    const { handshake, records } = await talk(client, {}, "/talk");
    assert.equal(handshake.headers["authorization"], `Bearer ${value}`);
    assert.deepEqual(records, { "substituted header:authorization": 1 });
  });

  test(`${client}: the handshake's query, as browsers have to`, async () => {
    const { handshake, records } = await talk(client, { in: "query" }, "/talk?token=");
    assert.equal(new URL(handshake.url, "https://server.test").searchParams.get("token"), value);
    assert.deepEqual(records, { "substituted query": 1 });
  });

  test(`${client}: a host that the secret does not list gets the placeholder`, async () => {
    const { handshake, records } = await talk(client, { hosts: otherHost }, "/talk");
    assert.match(handshake.headers["authorization"] ?? "", /^Bearer kloak:/);
    assert.deepEqual(records, { "refused host-not-allowed": 1 });
  });
}
