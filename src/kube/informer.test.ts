import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import fc from "fast-check";
import { Backoff } from "./backoff.ts";
import { Informer } from "./informer.ts";
import type { KubeObject } from "./objects.ts";
import { resources } from "./resource.ts";
import { type Asked, refuse, send, UnrulyServer, until } from "./testing.ts";

interface Change {
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly version: number;
  readonly object: KubeObject;
}

/** Lists and watches of one collection, as an API server has them, and ways to break them. */
class Collection {
  readonly objects = new Map<string, KubeObject>();
  readonly changes: Change[] = [];
  readonly #watches = new Set<ServerResponse>();
  version = 100;
  /** Versions up to here are forgotten. */
  compacted = 0;
  lists = 0;
  watches = 0;
  #uids = 0;

  put(name: string): void {
    const before = this.objects.get(name);
    this.version += 1;
    const uid = before?.metadata.uid ?? `uid-${++this.#uids}`;
    const object = { metadata: { name, uid, resourceVersion: String(this.version) } };
    this.objects.set(name, object);
    this.#tell({ type: before === undefined ? "ADDED" : "MODIFIED", version: this.version, object });
  }

  remove(name: string, isHeard = true): void {
    const object = this.objects.get(name);
    if (object === undefined) return;
    this.version += 1;
    this.objects.delete(name);
    const last = { metadata: { ...object.metadata, resourceVersion: String(this.version) } };
    if (isHeard) this.#tell({ type: "DELETED", version: this.version, object: last });
  }

  bookmark(): void {
    const object = { metadata: { name: "", resourceVersion: String(this.version) } };
    for (const watch of this.#watches) watch.write(`${JSON.stringify({ type: "BOOKMARK", object })}\n`);
  }

  /** All watches end, after `text`. */
  cut(text: string, isClean: boolean): void {
    for (const watch of this.#watches) {
      if (isClean) watch.end(text);
      else watch.write(text, () => watch.destroy());
    }
    this.#watches.clear();
  }

  readonly answer = ({ query }: Asked, response: ServerResponse): void => {
    if (query.get("watch") === "true") this.#watch(query, response);
    else this.#list(query, response);
  };

  #list(query: URLSearchParams, response: ServerResponse): void {
    this.lists += 1;
    const [version = this.version, from = 0] = (query.get("continue") ?? "").split("/").filter(Boolean).map(Number);
    // A page that belongs to a list of before is not to be had any more.
    if (version < this.version) return refuse(response, 410, "Expired");
    const limit = Number(query.get("limit"));
    const all = [...this.objects.values()];
    const next = from + limit < all.length ? `${version}/${from + limit}` : "";
    send(response, 200, {
      metadata: { resourceVersion: String(version), continue: next },
      items: all.slice(from, from + limit),
    });
  }

  #watch(query: URLSearchParams, response: ServerResponse): void {
    const from = Number(query.get("resourceVersion"));
    const end = setTimeout(() => response.end(), Number(query.get("timeoutSeconds")) * 1000);
    response.on("close", () => clearTimeout(end));
    this.watches += 1;
    response.writeHead(200);
    if (from < this.compacted) {
      const object = { kind: "Status", code: 410, reason: "Expired", message: "too old resource version" };
      return void response.end(`${JSON.stringify({ type: "ERROR", object })}\n`);
    }
    response.flushHeaders();
    for (const { type, object, version } of this.changes)
      if (version > from) response.write(`${JSON.stringify({ type, object })}\n`);
    this.#watches.add(response);
    response.on("close", () => this.#watches.delete(response));
  }

  #tell(change: Change): void {
    this.changes.push(change);
    const { type, object } = change;
    for (const watch of this.#watches) watch.write(`${JSON.stringify({ type, object })}\n`);
  }
}

let server: UnrulyServer;
let there: Collection;
before(async () => {
  server = await UnrulyServer.start();
});
after(() => server.close());
beforeEach(() => {
  there = new Collection();
  server.answer = there.answer;
});

const versions = (objects: Iterable<KubeObject>): readonly string[] =>
  [...objects]
    .map(({ metadata: { name, uid, resourceVersion } }) => `${name} ${uid} ${resourceVersion}`)
    .toSorted((a, b) => (a < b ? -1 : 1));
const names = (objects: Iterable<KubeObject>): readonly string[] => [...objects].map(({ metadata }) => metadata.name);

/** An informer, and what one would know who only heard its words. */
class Listener {
  readonly heard = new Map<string, KubeObject>();
  readonly warnings: string[] = [];
  readonly gone: string[] = [];
  readonly informer: Informer<KubeObject>;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;

  constructor(more: { relistMs?: number; backoff?: Backoff; keep?: (object: KubeObject) => KubeObject } = {}) {
    this.informer = new Informer<KubeObject>({
      client: server.client(),
      resource: resources.namespaces,
      keep: (object) => object,
      backoff: new Backoff(1, 20),
      pageSize: 3,
      warn: (text) => this.warnings.push(text),
      changed: (key, now, before) => {
        assert.equal(this.heard.get(key), before, `${key}: what was before is not what was told`);
        if (now !== undefined && before !== undefined) assert.equal(now.metadata.uid, before.metadata.uid);
        if (now === undefined) {
          this.heard.delete(key);
          this.gone.push(before?.metadata.uid ?? "");
        } else this.heard.set(key, now);
      },
      ...more,
    });
    this.#ended = this.informer.run(this.#stop.signal);
  }

  get isCurrent(): boolean {
    const wanted = versions(there.objects.values()).join();
    return [this.informer.values(), this.heard.values()].every((objects) => versions(objects).join() === wanted);
  }

  async current(): Promise<void> {
    await this.informer.synced;
    await until("the copy to be what there is", () => this.isCurrent);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
    assert.deepEqual(
      this.warnings.filter((text) => text.includes("told")),
      [],
    );
  }
}

test("whatever happens to lists and watches, the copy becomes what there is, and each change is told once", async () => {
  const name = fc.constantFrom("a", "b", "c", "d", "e", "f", "g");
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ what: fc.constant("put" as const), name }) },
    { weight: 3, arbitrary: fc.record({ what: fc.constant("remove" as const), name }) },
    fc.record({ what: fc.constant("bookmark" as const) }),
    fc.record({ what: fc.constant("compact" as const) }),
    fc.record({ what: fc.constant("cut" as const), bytes: fc.nat(80), isClean: fc.boolean() }),
    fc.record({
      what: fc.constant("refuse" as const),
      status: fc.constantFrom(0, 401, 429, 500, 503),
      times: fc.nat(2),
    }),
    fc.record({ what: fc.constant("wait" as const) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      there = new Collection();
      let refusals = 0;
      let status = 0;
      server.answer = (asked, response) => {
        if (refusals-- <= 0) return there.answer(asked, response);
        if (status === 0) asked.socket.destroy();
        else refuse(response, status, "Unruly");
      };
      for (const first of ["a", "b", "c", "d"]) there.put(first);
      const listener = new Listener();
      try {
        for (const each of steps) {
          if (each.what === "put") there.put(each.name);
          else if (each.what === "remove") there.remove(each.name);
          else if (each.what === "bookmark") there.bookmark();
          else if (each.what === "compact") {
            there.compacted = there.version;
            there.cut("", true);
          } else if (each.what === "cut") {
            const line = JSON.stringify({ type: "ADDED", object: { metadata: { name: "never", uid: "u" } } });
            there.cut(line.slice(0, Math.min(each.bytes, line.length - 1)), each.isClean);
          } else if (each.what === "refuse") {
            refusals = each.times;
            status = each.status;
            there.cut("", false);
          } else await listener.informer.synced;
        }
        refusals = 0;
        await listener.current();
      } finally {
        await listener.stop();
      }
    }),
    { numRuns: 100 },
  );
});

test("a deletion that no watch has told is found by the next list", async () => {
  for (const name of ["a", "b", "c", "d"]) there.put(name);
  const listener = new Listener({ relistMs: 100 });
  await listener.current();
  there.remove("b", false);
  await until("its end", () => listener.isCurrent);
  assert.deepEqual(names(listener.informer.values()), ["a", "c", "d"]);
  await listener.stop();
});

test("an object that was deleted and made anew meanwhile is another: the first is told to be gone", async () => {
  there.put("a");
  const listener = new Listener({ relistMs: 100 });
  await listener.current();
  there.remove("a", false);
  there.put("a");
  await until("the new one", () => listener.isCurrent);
  assert.deepEqual(listener.gone, ["uid-1"]);
  await listener.stop();
});

test("after a bookmark a watch goes on from there, and nothing is listed anew", async () => {
  there.put("a");
  const listener = new Listener();
  await listener.current();
  await until("a watch", () => there.watches === 1);
  there.version += 1000; // of other collections
  there.bookmark();
  there.put("b");
  await listener.current();
  there.compacted = 1100;
  there.cut("", true);
  there.put("c");
  await listener.current();
  assert.equal(there.lists, 1);
  await listener.stop();
});

test("a server that ends every watch at once, or calls every version too old, is not asked without a pause", async () => {
  there.put("a");
  for (const answer of [
    (response: ServerResponse) => void response.end(),
    (response: ServerResponse) =>
      void response.end(`${JSON.stringify({ type: "ERROR", object: { code: 410, reason: "Expired" } })}\n`),
  ]) {
    let watches = 0;
    server.answer = (asked, response) => {
      if (asked.query.get("watch") !== "true") return there.answer(asked, response);
      watches += 1;
      answer(response);
    };
    const pauses: number[] = [];
    const backoff = new Backoff(1, 5);
    const next = backoff.next.bind(backoff);
    backoff.next = () => {
      pauses.push(watches);
      return next();
    };
    const listener = new Listener({ backoff });
    await until("ten watches", () => watches >= 10);
    await listener.stop();
    assert.ok(pauses.length >= watches - 1, `${watches} watches, ${pauses.length} pauses`);
  }
});

test("an object that is not understood keeps no other from being known", async () => {
  for (const name of ["a", "bad", "c"]) there.put(name);
  const keep = (object: KubeObject): KubeObject => {
    if (object.metadata.name === "bad") throw new Error("no spec");
    return object;
  };
  const listener = new Listener({ keep });
  await listener.informer.synced;
  there.put("bad");
  there.put("d");
  await until("the last", () => listener.informer.get("d") !== undefined);
  assert.deepEqual(names(listener.informer.values()), ["a", "c", "d"]);
  assert.match(listener.warnings.join("\n"), /Namespace bad is not understood: no spec/);
  await listener.stop();
});
