/* Replicas over real connections: what one hears from agents, all have. */
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { after, before, test } from "node:test";
import fc from "fast-check";
import type { AuditRecord } from "../audit/index.ts";
import { KubeClient } from "../kube/client.ts";
import { until } from "../kube/testing.ts";
import type { CertificateSource } from "../tls/certificate-source.ts";
import { HttpsServer } from "../tls/server.ts";
import { AuditStore } from "./audit-store.ts";
import {
  type KeyPair,
  makeAuthority,
  makePeerCertificate,
  makeServerCertificate,
  signAgent,
  validFor,
} from "./certificates.ts";
import { Peers } from "./peers.ts";

const record = (host: string, second = 0): AuditRecord => ({
  time: new Date(Date.UTC(2026, 10, 23, 16, 0, second)).toISOString(),
  outcome: "refused",
  reason: "not-bound",
  secret: null,
  workload: null,
  destination: { host, address: null, port: null, attestation: null },
  slot: null,
  encoding: null,
  protocol: null,
  tls: { version: null, cipher: null, stack: null },
});
const hostsOf = (store: AuditStore): readonly (string | null)[] =>
  store.records().map(({ destination }) => destination.host);

test("the store keeps the newest, counts what has left, and a reader can go on where it was", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 9 }), fc.array(fc.nat(7), { maxLength: 40 }), (capacity, steps) => {
      const store = new AuditStore({ identity: "a", capacity });
      let count = 0;
      let position = 0;
      const read: string[] = [];
      for (const most of steps) {
        store.add(record(String(count++)));
        const { entries, next } = store.since(position, most);
        read.push(...entries.map((entry) => entry.record.destination.host ?? ""));
        position = next;
      }
      const kept = Array.from({ length: Math.min(capacity, count) }, (_, i) =>
        String(count - Math.min(capacity, count) + i),
      );
      assert.deepEqual(hostsOf(store), kept);
      assert.equal(store.dropped, Math.max(0, count - capacity));
      assert.deepEqual(
        read,
        [...new Set(read)].toSorted((a, b) => Number(a) - Number(b)),
        "in order, each once",
      );
    }),
  );
});

let authority: KeyPair;
let certificates: CertificateSource;
before(async () => {
  authority = await makeAuthority("kloak", validFor(3600_000));
  const { certificate, key } = await makeServerCertificate(authority, ["controller.test"], validFor(3600_000));
  const identity = { certificate, key, trust: authority.certificate };
  certificates = { identity, onChange: () => undefined, run: () => Promise.resolve() };
});
const replicas = new Set<Replica>();
after(async () => {
  for (const replica of replicas) await replica.stop();
});

/** Where the replicas are now. */
const addresses = new Set<string>();
let port = 0;

class Replica {
  readonly store: AuditStore;
  readonly peers: Peers;
  nodes: readonly string[] = [];
  readonly address: string;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  readonly #server: HttpsServer;

  static async start(identity: string, address: string): Promise<Replica> {
    const route: { serve?: Peers["serve"] } = {};
    const server = await HttpsServer.listen({
      certificates,
      host: address,
      port,
      routes: { "GET /v1/peer": async (exchange) => route.serve?.(exchange) },
      askCertificate: true,
      warn: () => undefined,
    });
    port = server.port;
    addresses.add(address);
    const replica = new Replica(identity, address, server);
    route.serve = (exchange) => replica.peers.serve(exchange);
    replicas.add(replica);
    return replica;
  }

  private constructor(identity: string, address: string, server: HttpsServer) {
    this.address = address;
    this.#server = server;
    this.store = new AuditStore({ identity });
    this.peers = new Peers({
      identity,
      name: "peers.test",
      port,
      serverName: "controller.test",
      certificates,
      authority: () => authority,
      store: this.store,
      nodes: () => this.nodes,
      signal: this.#stop.signal,
      warn: () => undefined,
      resolve: () => Promise.resolve([...addresses]),
    });
    this.#ended = this.peers.run(this.#stop.signal);
  }

  async stop(): Promise<void> {
    replicas.delete(this);
    addresses.delete(this.address);
    this.#stop.abort();
    await this.#server.close();
    await this.#ended;
  }
}

test("records of one replica are all replicas', once; what one had outlives it, and reaches its successor", async () => {
  const first = await Replica.start("a", "127.0.0.2");
  for (let i = 0; i < 1200; i++) first.store.add(record(`early ${i}`, 1));
  const second = await Replica.start("b", "127.0.0.3");
  await until("what was there before", () => hostsOf(second.store).length === 1200);
  first.store.add(record("to a", 3));
  second.store.add(record("to b", 2));
  for (const { store } of [first, second]) await until("both", () => hostsOf(store).slice(1200).join() === "to b,to a"); // by their time
  await first.stop();
  const third = await Replica.start("c", "127.0.0.2");
  await until("what the dead one had", () => hostsOf(third.store).length === 1202);
  third.store.add(record("to c", 4));
  await until("what comes after", () => hostsOf(second.store).at(-1) === "to c");
  assert.equal(hostsOf(second.store).length, 1203);
});

test("the nodes of all replicas are known to each, and those of a dead one to none", async () => {
  const [second, third] = [...replicas] as [Replica, Replica];
  [second.nodes, third.nodes] = [["node-a"], ["node-b", "node-a"]];
  await until("both nodes", () => second.peers.nodes.length === 2 && third.peers.nodes.length === 2);
  await third.stop();
  await until("its own alone", () => second.peers.nodes.join() === "node-a");
});

test("nobody but a replica is told", async () => {
  const [replica] = [...replicas] as [Replica];
  const strangers = await makeAuthority("kloak", validFor(3600_000));
  const { publicKey, privateKey } = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
  });
  const agent = { certificate: await signAgent(authority, publicKey, "node-a", validFor(3600_000)), key: privateKey };
  const cases = [
    ["nobody", undefined, 401],
    ["a replica of another cluster", await makePeerCertificate(strangers, validFor(3600_000)), 401],
    ["a certificate of before", await makePeerCertificate(authority, { from: new Date(0), to: new Date(1000) }), 401],
    ["an agent", agent, 403],
  ] as const;
  for (const [who, own, status] of cases) {
    const client = new KubeClient({
      server: new URL(`https://${replica.address}:${port}`),
      ca: authority.certificate,
      authorization: () => undefined,
      verification: { servername: "controller.test" },
      ...(own !== undefined && { certificate: { cert: own.certificate, key: own.key } }),
    });
    await assert.rejects(client.request("GET", "/v1/peer"), { status }, who);
    client.close();
  }
});
