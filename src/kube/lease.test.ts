import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { Election } from "./lease.ts";
import { type Asked, refuse, send, UnrulyServer, until } from "./testing.ts";

interface Lease {
  readonly metadata: { readonly resourceVersion: string };
  readonly spec: { readonly holderIdentity: string; readonly [name: string]: unknown };
}

/** The one lease of an API server. */
let lease: Lease | undefined;
let version = 0;
let server: UnrulyServer;
before(async () => {
  server = await UnrulyServer.start();
});
after(() => server.close());
beforeEach(() => {
  server.asked.length = 0;
  server.answer = serve;
  lease = undefined;
});

function serve({ method, body }: Asked, response: ServerResponse): void {
  if (method === "GET") return lease === undefined ? refuse(response, 404, "NotFound") : send(response, 200, lease);
  const wanted = body as Lease;
  const isStale =
    method === "POST" ? lease !== undefined : wanted.metadata.resourceVersion !== lease?.metadata.resourceVersion;
  if (isStale) return refuse(response, 409, "Conflict");
  lease = { ...wanted, metadata: { ...wanted.metadata, resourceVersion: String(++version) } };
  send(response, 200, lease);
}

/** Somebody else writes the lease. */
function take(holderIdentity: string, more: object = {}): void {
  const spec = { holderIdentity, leaseDurationSeconds: 3600, renewTime: new Date().toISOString(), ...more };
  lease = { metadata: { resourceVersion: String(++version) }, spec };
}

const hourMs = 3600_000;

/** One replica: whether it leads, and how it is ended. */
class Replica {
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  readonly warnings: string[] = [];
  leads = false;
  turns = 0;

  constructor(identity: string, durationMs: number, lead?: () => Promise<void>) {
    const warn = (text: string): unknown => this.warnings.push(text);
    const client = server.client({ authorization: () => identity });
    const options = { client, namespace: "n", name: "l", identity, durationMs, renewMs: 10, warn };
    this.#ended = new Election(options).run(this.#stop.signal, async (signal) => {
      this.turns += 1;
      if (lead !== undefined) return lead();
      this.leads = true;
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
      this.leads = false;
    });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }
}

test("one leads; when it ends it gives the lease back, and the other need not wait", async () => {
  const replicas = [new Replica("a", hourMs), new Replica("b", hourMs)];
  await until("a leader", () => replicas.some(({ leads }) => leads));
  const [first, second] = replicas.toSorted((a, b) => Number(b.leads) - Number(a.leads)) as [Replica, Replica];
  assert.equal(second.leads, false);
  await first.stop();
  await until("the other", () => second.leads);
  assert.equal(first.leads, false);
  await second.stop();
  assert.equal(lease?.spec.holderIdentity, "");
});

test("a leader that finds another's name in its lease leads no more, at once", async () => {
  const replica = new Replica("a", hourMs);
  await until("its lead", () => replica.leads);
  take("b");
  await until("its end", () => !replica.leads);
  const asked = server.asked.length;
  await until("more looks", () => server.asked.length > asked + 5);
  assert.equal(lease?.spec.holderIdentity, "b");
  await replica.stop();
  assert.equal(lease?.spec.holderIdentity, "b", "another's lease was given back");
});

for (const [what, unruly] of [
  ["says nothing", () => undefined],
  ["refuses", (_: Asked, response: ServerResponse) => refuse(response, 500, "InternalError")],
  ["cuts connections", ({ socket }: Asked) => void socket.destroy()],
] as const)
  test(`a leader to whom the API server ${what} leads no more when another begins to`, async () => {
    const first = new Replica("a", 1500);
    await until("its lead", () => first.leads);
    server.answer = (asked, response) =>
      asked.authorization === "a" ? unruly(asked, response) : serve(asked, response);
    let ledBoth = false;
    const second = new Replica("b", 1500, async () => {
      ledBoth ||= first.leads;
    });
    await until("another's lead", () => second.turns > 0);
    assert.equal(ledBoth, false);
    await second.stop();
    server.answer = serve;
    await until("its lead again", () => first.leads);
    await first.stop();
  });

test("an answer that comes when the lease may be another's again makes nobody a leader", async () => {
  const earlier = version;
  server.answer = (asked, response) => {
    if (asked.method === "GET") return serve(asked, response);
    setTimeout(() => serve(asked, response), 900);
  };
  const replica = new Replica("a", 1200);
  await until("two late answers", () => version >= earlier + 2);
  assert.equal(replica.turns, 0);
  server.answer = serve;
  await until("its lead", () => replica.leads);
  await replica.stop();
});

for (const [what, renewTime] of [
  ["far behind", "1970-01-01T00:00:00.000000Z"],
  ["far ahead", "2999-01-01T00:00:00.000000Z"],
] as const) {
  test(`a holder whose clock is ${what} is believed while it renews`, async () => {
    take("b", { renewTime, leaseDurationSeconds: 1 });
    const replica = new Replica("a", hourMs);
    const end = performance.now() + 2500;
    const beat = setInterval(() => take("b", { renewTime, leaseDurationSeconds: 1 }), 50);
    await until("two and a half seconds", () => performance.now() > end);
    clearInterval(beat);
    assert.equal(replica.turns, 0);
    assert.ok(server.asked.every(({ method }) => method === "GET"));
    await until("its lead, when the holder is silent", () => replica.leads);
    await replica.stop();
  });
}

test("of many who want it at once one leads, whatever becomes of their requests", async () => {
  let calls = 0;
  server.answer = (asked, response) => {
    calls += 1;
    if (calls % 7 === 0) return refuse(response, 503, "ServiceUnavailable");
    if (calls % 11 === 0) return void asked.socket.destroy();
    // Done, and the answer lost.
    if (calls % 13 === 0)
      return serve(
        asked,
        Object.assign(Object.create(response), {
          writeHead: () => ({ end: () => asked.socket.destroy() }),
        }) as ServerResponse,
      );
    serve(asked, response);
  };
  const replicas = ["a", "b", "c", "d", "e"].map((name) => new Replica(name, 30_000));
  for (let turn = 0; turn < 4; turn++) {
    await until("a leader", () => replicas.some(({ leads }) => leads), 40_000);
    assert.equal(replicas.filter(({ leads }) => leads).length, 1);
    server.answer = serve; // so that it can be given back
    const leader = replicas.find(({ leads }) => leads);
    await leader?.stop();
    replicas.splice(replicas.indexOf(leader as Replica), 1);
  }
  await Promise.all(replicas.map((replica) => replica.stop()));
});

test("a lead that fails gives the lease back, is said, and comes again", async () => {
  const replica = new Replica("a", hourMs, () => Promise.reject(new Error("out of order")));
  await until("three turns", () => replica.turns >= 3);
  assert.match(replica.warnings.join(), /out of order/);
  await replica.stop();
  assert.equal(lease?.spec.holderIdentity, "");
});

test("a lease that was deleted is made again, without an end of the lead", async () => {
  const replica = new Replica("a", hourMs);
  await until("its lead", () => replica.leads);
  lease = undefined;
  await until("a new lease", () => lease?.spec.holderIdentity === "a");
  assert.equal(replica.turns, 1);
  await replica.stop();
});
