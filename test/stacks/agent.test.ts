/*
 * Reasons that no single `kloak run` can give: a placeholder of another workload of the same agent, a key older than the
 * hooks, a full table, a secret that has just been taken away. Needs root.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Agent } from "../../src/agent/agent.ts";
import type { AuditRecord } from "../../src/audit/index.ts";
import { type DataplaneOptions, openDataplane } from "../../src/dataplane/index.ts";
import { createNamespace } from "../../src/lab/namespace.ts";
import { makePlaceholder, SecretValue } from "../../src/placeholder/index.ts";
import { parsePolicy } from "../../src/policy/policy.ts";
import { count, timesIn } from "../support/requests.ts";
import { protect, ToldClient } from "../support/told-client.ts";
import { host, makeSecret, World } from "../support/world.ts";

const world = await World.create((certificates) => [
  { name: "raw 1.3", kind: "raw", certificate: certificates.good, version: "TLSv1.3" },
  { name: "raw 1.2", kind: "raw", certificate: certificates.good, version: "TLSv1.2" },
]);
const client = createNamespace();
after(async () => {
  client.close();
  await world.close();
});

/** Says `up` when it is connected, then for each line that it reads sends a request with its second argument. */
const program = `
import socket, ssl, sys
address, port, host, key = sys.argv[1:]
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
print("loaded", flush=True); sys.stdin.readline()
stream = context.wrap_socket(socket.create_connection((address, int(port)), 60), server_hostname=host)
print("up", flush=True)
for line in sys.stdin:
    stream.sendall(f"GET / HTTP/1.1\\r\\nHost: {host}\\r\\nX-Api-Key: {key}\\r\\n\\r\\n".encode())
    stream.recv(9)
    print("sent", flush=True)
`;

function startClient(listener: string, placeholder: string): ToldClient {
  const port = String(world.server.port(listener));
  const python = ["python3", "-c", program, world.namespace.ipv4.inside, port, host, placeholder];
  return new ToldClient(client.within(python));
}

interface Case {
  readonly name: string;
  readonly reason: string;
  readonly listener: string;
  readonly bound?: boolean;
  readonly late?: boolean;
  readonly dataplane?: DataplaneOptions;
}

const cases: readonly Case[] = [
  ...["raw 1.3", "raw 1.2"].flatMap((listener) => [
    { name: "a secret of another workload", reason: "not-bound", listener, bound: false },
    { name: "a connection older than the hooks", reason: "unknown-key", listener, late: true },
    { name: "no room for the key", reason: "tables-full", listener, dataplane: { entries: { keys: 1 } } },
  ]),
];

for (const { name, reason, listener, bound = true, late = false, dataplane = {} } of cases) {
  test(`${reason}, ${listener}: ${name}`, async () => {
    const value = makeSecret(51);
    const placeholder = makePlaceholder(new SecretValue(value));
    const records: AuditRecord[] = [];
    const agent = await Agent.open({
      dataplane: await openDataplane(dataplane),
      audit: (record) => records.push(record),
    });
    const speaker = startClient(listener, placeholder);
    try {
      await speaker.says("loaded");
      const workload = protect(agent, client);
      const policy = parsePolicy({ hosts: host });
      const roots: string[] = [];
      agent.bind({
        ...{ name: "KEY", value: new SecretValue(value), placeholder, policy, roots },
        workloads: [bound ? workload.number : workload.number + 1],
      });
      if (dataplane.entries !== undefined) {
        // One other key fills the table: its connection stays open.
        const first = startClient(listener, "nothing");
        await first.says("loaded");
        agent.hookProcess(first.pid);
        await first.does("", "up");
        await first.does("", "sent");
        await round(speaker, agent, late);
        await first.end();
      } else {
        await round(speaker, agent, late);
      }
    } finally {
      await speaker.end();
      await agent.close();
    }
    const { requests } = await world.server.take({ closed: listener });
    const text = requests.flatMap(({ body }) => body ?? "").join("");
    assert.deepEqual([timesIn(text, value), timesIn(text, placeholder)], [0, 1]);
    // That a program was running before it was hooked is said too, once for the file.
    const refused = records.filter(({ outcome }) => outcome !== "unprotected");
    assert.deepEqual(
      count(refused.map((record) => `${record.outcome} ${record.reason} ${record.secret} ${record.workload?.kind}`)),
      { [`refused ${reason} KEY run`]: 1 },
    );
  });
}

async function round(speaker: ToldClient, agent: Agent, late: boolean): Promise<void> {
  if (!late) agent.hookProcess(speaker.pid);
  await speaker.does("", "up");
  if (late) agent.hookProcess(speaker.pid);
  await speaker.does("", "sent");
}
