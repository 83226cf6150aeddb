/*
 * The promise: a workload that fills every table it can reach has a share of it, its own later connections are inert and
 * a record says why, and another workload goes on as if nothing were. Real libcrypto, real uprobes, tables of their real
 * size. Needs root.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { Agent, type ProtectedWorkload } from "../../src/agent/agent.ts";
import type { AuditRecord } from "../../src/audit/index.ts";
import { type Dataplane, mapTypes, openDataplane, table } from "../../src/dataplane/index.ts";
import { sweepLimits } from "../../src/dataplane/sweeper.ts";
import { createNamespace, type Namespace } from "../../src/lab/namespace.ts";
import { makePlaceholder, SecretValue } from "../../src/placeholder/index.ts";
import { parsePolicy } from "../../src/policy/policy.ts";
import { count, timesIn } from "../support/requests.ts";
import { protect, ToldClient } from "../support/told-client.ts";
import { host, makeSecret, World } from "../support/world.ts";

const listener = "raw 1.3";
const http2 = "http/2";
const world = await World.create((certificates) => [
  { name: listener, kind: "raw", certificate: certificates.good, version: "TLSv1.3" },
  { name: http2, kind: "http2", certificate: certificates.good },
]);
const namespaces = { flooder: createNamespace(), other: createNamespace() };
after(async () => {
  namespaces.flooder.close();
  namespaces.other.close();
  await world.close();
});

/*
 * `connect`: opens a connection, over which each further `request` goes. `http2`: a request by HTTP/2. `flood`: says to libcrypto what a TLS 1.3 client
 * says of its first record, under a new key in a new context each time.
 */
const program = `
import ctypes, os, socket, ssl, sys
address, port, host, key = sys.argv[1:]
crypto = ctypes.CDLL("libcrypto.so.3")
for name in ("EVP_CIPHER_CTX_new", "EVP_aes_128_gcm"):
    getattr(crypto, name).restype = ctypes.c_void_p
request = f"GET / HTTP/1.1\\r\\nHost: {host}\\r\\nX-Api-Key: {key}\\r\\n\\r\\n".encode()
cipher = ctypes.c_void_p(crypto.EVP_aes_128_gcm())
text, out, n = request + b"\\x17", ctypes.create_string_buffer(1024), ctypes.c_int()
header = bytes([23, 3, 3]) + (len(text) + 16).to_bytes(2, "big")
def flood():
    it = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
    crypto.EVP_CipherInit_ex(it, cipher, None, None, None, 1)
    crypto.EVP_CipherInit_ex(it, None, None, os.urandom(16), None, -1)
    crypto.EVP_CipherInit_ex(it, None, None, None, bytes(12), 1)
    crypto.EVP_CipherUpdate(it, None, ctypes.byref(n), header, 5)
    crypto.EVP_CipherUpdate(it, out, ctypes.byref(n), text, len(text))
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
print("loaded", flush=True)
for line in sys.stdin:
    word, *more = line.split()
    if word == "flood":
        for _ in range(int(more[0])): flood()
    if word == "connect":
        stream = context.wrap_socket(socket.create_connection((address, int(port)), 60), server_hostname=host)
    if word == "request":
        stream.sendall(request)
        stream.recv(9)
    if word == "http2":
        from h2.connection import H2Connection
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(socket.create_connection((address, int(more[0])), 60), server_hostname=host) as stream:
            session = H2Connection()
            session.initiate_connection()
            fields = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": host, "x-api-key": key}
            session.send_headers(1, fields.items(), end_stream=True)
            stream.sendall(session.data_to_send())
            while not any(type(event).__name__ == "StreamEnded" for event in session.receive_data(stream.recv(65536))): pass
    print(word, "done", flush=True)
`;

function startClient(namespace: Namespace, placeholder: string): ToldClient {
  const port = String(world.server.port(listener));
  const python = ["/usr/bin/python3", "-c", program, world.namespace.ipv4.inside, port, host, placeholder];
  return new ToldClient(namespace.within(python));
}

/** Gives an order, and waits until it is carried out. */
async function tell(client: ToldClient, text: string): Promise<void> {
  await client.does(text, `${text.split(" ")[0] ?? ""} done`);
}

interface Scene {
  readonly dataplane: Dataplane;
  readonly workloads: Readonly<Record<keyof typeof namespaces, ProtectedWorkload>>;
  readonly value: string;
  readonly placeholder: string;
  readonly records: AuditRecord[];
  readonly start: (who: keyof typeof namespaces) => Promise<ToldClient>;
}

async function withAgent(play: (scene: Scene) => Promise<void>): Promise<void> {
  const value = makeSecret(51);
  const placeholder = makePlaceholder(new SecretValue(value));
  const records: AuditRecord[] = [];
  const dataplane = await openDataplane();
  const agent = await Agent.open({ dataplane, audit: (record) => records.push(record) });
  const clients: ToldClient[] = [];
  try {
    const workloads = { flooder: protect(agent, namespaces.flooder), other: protect(agent, namespaces.other) };
    agent.bind({
      ...{
        name: "KEY",
        value: new SecretValue(value),
        placeholder,
        roots: [readFileSync(world.authority.caFile, "utf8")],
      },
      policy: parsePolicy({ hosts: host }),
      workloads: [workloads.flooder.number, workloads.other.number],
    });
    const start = async (who: keyof typeof namespaces): Promise<ToldClient> => {
      const client = startClient(namespaces[who], placeholder);
      clients.push(client);
      await client.says("loaded");
      agent.hookProcess(client.pid);
      return client;
    };
    await play({ dataplane, workloads, value, placeholder, records, start });
  } finally {
    for (const client of clients) await client.end();
    await agent.close();
  }
}

/** What the server has got since the last call: requests with the secret, and with the placeholder. */
async function served({ value, placeholder }: Scene, at = listener): Promise<[secrets: number, placeholders: number]> {
  const { requests } = await world.server.take({ closed: at });
  const text = JSON.stringify(requests);
  return [timesIn(text, value), timesIn(text, placeholder)];
}

/** A connection with one request, and what the server has got of it. */
async function visit(scene: Scene, client: ToldClient, at = listener): Promise<[number, number]> {
  if (at === http2) await tell(client, `http2 ${world.server.port(http2)}`);
  else for (const order of ["connect", "request"]) await tell(client, order);
  await client.end();
  return await served(scene, at);
}

const secret = [1, 0];
const inert = [0, 1];

/** Those that a process can fill by what it says alone. */
const cipherTables = ["keys", "contexts", "patches", "regionChunks", "fingerprints"] as const;
const sizes: Readonly<Record<(typeof cipherTables)[number], number>> = {
  keys: mapTypes.keys.entries,
  contexts: mapTypes.contexts.entries,
  patches: mapTypes.patches.entries,
  regionChunks: mapTypes.region_chunks.entries,
  fingerprints: mapTypes.fingerprints.entries,
};

test("a workload floods: it is inert and told so, another goes on unharmed, and time heals it", async () => {
  await withAgent(async (scene) => {
    const { dataplane, workloads, records, start } = scene;
    const old = await start("other");
    await tell(old, "connect");
    await tell(old, "request");
    const flooder = await start("flooder");
    await tell(flooder, `flood ${sizes.contexts / 2}`);
    const { keysFull, contextsFull, sharesExceeded } = dataplane.counters();
    for (const [name, counted] of Object.entries({ keysFull, contextsFull, sharesExceeded }))
      assert.ok(counted > 0n, name);
    const used = dataplane.maps.shares.get(workloads.flooder.number)?.used ?? [];
    for (const name of cipherTables) {
      const share = used[table[name]] ?? 0;
      // A third, and what came while a sweep was counting.
      assert.ok(share <= sizes[name] * 0.4, `${name}: ${share} of ${sizes[name]}`);
    }
    assert.ok((used[table.keys] ?? 0) >= sizes.keys * 0.3, "the flood has filled its share");
    // Who was there before, and who comes now.
    await tell(old, "request");
    await old.end();
    assert.deepEqual(await served(scene), [2, 0]);
    assert.deepEqual(await visit(scene, await start("other")), secret);
    // The flooder itself.
    records.splice(0);
    assert.deepEqual(await visit(scene, await start("flooder")), inert);
    dataplane.drainEvents();
    assert.ok((count(records.map(({ reason }) => `${reason}`))["tables-full"] ?? 0) > 0, JSON.stringify(records));
    await flooder.end();
    const later = process.hrtime.bigint() + sweepLimits.idleKey + 10_000_000_000n;
    const swept = dataplane.sweeper.sweep(later);
    assert.ok(swept.keys > 0 && swept.contexts > 0 && swept.patches > 0 && swept.fingerprints > 0);
    dataplane.sweeper.sweep(later); // chunks without a patch go the second time
    assert.equal(dataplane.maps.shares.get(workloads.flooder.number), undefined);
    assert.deepEqual(await visit(scene, await start("flooder")), secret);
  });
});

test("what is made and freed by requests and connections is neither lost nor counted twice", async () => {
  await withAgent(async (scene) => {
    const { dataplane, workloads, start } = scene;
    for (let i = 0; i < 3; i++) {
      const client = await start("other");
      for (const order of ["connect", "request", "request"]) await tell(client, order);
      await client.end();
    }
    assert.deepEqual(await served(scene), [6, 0]);
    const before = dataplane.maps.shares.get(workloads.other.number)?.used;
    dataplane.sweeper.sweep(0n); // nothing is old yet
    // Contexts of processes that have ended are the sweep's to find.
    const counted = before?.map((entries, at) => (at === table.contexts ? 0 : entries));
    assert.deepEqual(dataplane.maps.shares.get(workloads.other.number)?.used, counted);
    dataplane.sweeper.sweep(process.hrtime.bigint() + sweepLimits.unacknowledged);
    assert.equal(dataplane.maps.shares.get(workloads.other.number), undefined);
  });
});

test("a share that is all used: a connection is inert, a record says why, and the next one has room again", async (context) => {
  await withAgent(async (scene) => {
    const { dataplane, workloads, records, start } = scene;
    for (const name of [...cipherTables, "h2States", "flows", "hellos", "outstanding"] as const) {
      await context.test(name, async () => {
        const at = name === "h2States" ? http2 : listener;
        const full = 1 << 20;
        const used = Array.from({ length: table.count }, (_, at) => (at === table[name] ? full : 0));
        const exceeded = dataplane.counters().sharesExceeded;
        // The agent's own sweep counts anew every ten seconds: only what happened without one is looked at.
        for (let stood = false, tries = 0; !stood; tries++) {
          assert.ok(tries < 5, "five visits in a row met a sweep");
          dataplane.maps.shares.set(workloads.other.number, { used });
          records.splice(0);
          const outcome = await visit(scene, await start("other"), at);
          stood = (dataplane.maps.shares.get(workloads.other.number)?.used[table[name]] ?? 0) > full / 2;
          if (stood) assert.deepEqual(outcome, inert);
        }
        dataplane.drainEvents();
        const refused = records.filter(({ outcome }) => outcome === "refused");
        assert.ok((count(refused.map(({ reason }) => `${reason}`))["tables-full"] ?? 0) > 0, JSON.stringify(records));
        assert.ok(dataplane.counters().sharesExceeded > exceeded);
        dataplane.sweeper.sweep();
        assert.deepEqual(await visit(scene, await start("other"), at), secret);
      });
    }
  });
});
