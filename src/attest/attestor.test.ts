import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { type Host, parseHosts } from "../policy/hosts.ts";
import { Attestor } from "./attestor.ts";
import type { Attested, AttestorOptions } from "./attestor.ts";
import type { Dial, Outcome } from "./certificate.ts";
import { ManualClock } from "./clock.ts";
import type { Limits } from "./limits.ts";
import type { Resolved } from "./resolver.ts";
import { Roots } from "./roots.ts";
import type { AttestRule } from "./rule.ts";
import { MemorySink } from "./verdict.ts";
import type { AttestationKey, Failure } from "./verdict.ts";

function rule(hosts: string | readonly Host[], more: Partial<AttestRule> = {}): AttestRule {
  const parsed = typeof hosts === "string" ? parseHosts(hosts) : hosts;
  return { hosts: parsed, ports: [], attest: "certificate", roots: [], ...more };
}

function key(
  address: string,
  name: string | null = "api.example.com",
  more: Partial<AttestationKey> = {},
): AttestationKey {
  return { address, port: 443, name, mode: "certificate", ...more };
}

const granted: Outcome = { validToMs: Infinity };
const refused = (reason: Failure["reason"], transient = false): Outcome => ({
  failure: { reason, detail: "", transient },
});

/** An attestor whose connections the test answers, in time that stands still. */
class Bench {
  readonly clock = new ManualClock();
  readonly sink = new MemorySink();
  readonly dials: (Dial & { readonly answer: (outcome: Outcome) => void })[] = [];
  readonly told: Attested[] = [];
  readonly addresses = new Map<string, readonly Resolved[]>();
  resolutions = 0;
  readonly attestor: Attestor;
  readonly #events = new EventTarget();
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;

  constructor(limits: Partial<Limits> = {}, more: Partial<AttestorOptions> = {}) {
    this.attestor = new Attestor({
      sink: this.sink,
      clock: this.clock,
      limits,
      roots: new Roots([]),
      resolver: {
        resolve: (name) => {
          this.resolutions += 1;
          this.#events.dispatchEvent(new Event("change"));
          const found = this.addresses.get(name);
          return found === undefined ? Promise.reject(new Error("ENOTFOUND")) : Promise.resolve(found);
        },
      },
      dial: (dial) => {
        const { promise, resolve } = Promise.withResolvers<Outcome>();
        this.dials.push({ ...dial, answer: resolve });
        this.#events.dispatchEvent(new Event("change"));
        return promise;
      },
      onAttested: (attested) => {
        this.told.push(attested);
        this.#events.dispatchEvent(new Event("change"));
      },
      ...more,
    });
    this.#ended = this.attestor.run(this.#stop.signal);
  }

  /** Waits for a state of things, which some event brings about; the deadline is the test runner's. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await once(this.#events, "change");
    await this.settled();
  }

  /** Lets all that needs no time happen. */
  async settled(): Promise<void> {
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
  }

  async advance(ms: number): Promise<void> {
    this.clock.advance(ms);
    await this.settled();
  }

  async answer(outcome: Outcome): Promise<void> {
    const dial = this.dials.shift();
    assert.ok(dial, "nothing has been dialled");
    dial.answer(outcome);
    await this.settled();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    for (const dial of this.dials) dial.answer(refused("timeout", true));
    await this.#ended;
  }

  /** As the kernel reads it. */
  verdict(asked: AttestationKey): boolean | undefined {
    const found = this.sink.get(asked);
    return found === undefined || found.expiresNs <= this.clock.monotonicNs() ? undefined : found.granted;
  }
}

function bench(name: string, body: (bench: Bench) => Promise<void>, limits: Partial<Limits> = {}): void {
  test(name, { timeout: 30_000 }, async () => {
    const made = new Bench(limits);
    try {
      await body(made);
    } finally {
      await made.close();
    }
  });
}

bench("on request: that very address, port and name are dialled, and the verdict is put", async (b) => {
  b.attestor.setRules([rule("*.example.com")]);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  const [dial] = b.dials;
  assert.deepEqual([dial?.address, dial?.port, dial?.name], ["192.0.2.1", 443, "api.example.com"]);
  await b.answer(granted);
  assert.equal(b.verdict(key("192.0.2.1")), true);
  assert.equal(b.verdict(key("192.0.2.2")), undefined);
});

bench("one address asked for many times at once is dialled once", async (b) => {
  b.attestor.setRules([rule("*.example.com")]);
  for (let count = 0; count < 100; count++) b.attestor.request(key("192.0.2.1"));
  b.attestor.request(key("::ffff:192.0.2.1", "API.example.com."));
  await b.settled();
  assert.equal(b.dials.length, 1);
});

bench("a refusal is put at once, holds half a minute, and is looked at again only when asked", async (b) => {
  b.attestor.setRules([rule("*.example.com")]);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  await b.answer(refused("wrong-name"));
  assert.equal(b.verdict(key("192.0.2.1")), false);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  assert.equal(b.dials.length, 0);
  await b.advance(30_000);
  assert.equal(b.verdict(key("192.0.2.1")), undefined);
  assert.equal(b.attestor.size.entries, 0);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  assert.equal(b.dials.length, 1);
});

bench("what cannot be reached is tried once more before it is refused", async (b) => {
  b.attestor.setRules([rule("*.example.com")]);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  await b.answer(refused("unreachable", true));
  assert.equal(b.verdict(key("192.0.2.1")), undefined);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  assert.equal(b.dials.length, 0);
  await b.advance(500);
  await b.answer(refused("timeout", true));
  assert.equal(b.verdict(key("192.0.2.1")), false);
});

bench("a verdict in use is renewed before it expires; another is not", async (b) => {
  b.attestor.setRules([rule("*.example.com")]);
  b.attestor.request(key("192.0.2.1"));
  b.attestor.request(key("192.0.2.2"));
  await b.settled();
  await b.answer(granted);
  await b.answer(granted);
  await b.advance(100_000);
  b.attestor.request(key("192.0.2.1"));
  await b.advance(390_000);
  assert.deepEqual(
    b.dials.map(({ address }) => address),
    ["192.0.2.1"],
  );
  await b.answer(granted);
  await b.advance(200_000);
  assert.equal(b.verdict(key("192.0.2.1")), true);
  assert.equal(b.sink.get(key("192.0.2.2")), undefined);
});

bench("a certificate that has changed ends the verdict; a server that is away does not", async (b) => {
  b.attestor.setRules([rule("*.example.com")]);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  await b.answer(granted);
  b.attestor.request(key("192.0.2.1"));
  await b.advance(480_000);
  await b.answer(refused("unreachable", true));
  assert.equal(b.verdict(key("192.0.2.1")), true);
  await b.advance(500);
  await b.answer(refused("wrong-name"));
  assert.equal(b.verdict(key("192.0.2.1")), false);
});

bench("a verdict holds no longer than the certificate", async (b) => {
  b.attestor.setRules([rule("*.example.com")]);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  await b.answer({ validToMs: b.clock.wallMs() + 60_000 });
  await b.advance(59_999);
  assert.equal(b.verdict(key("192.0.2.1")), true);
  await b.advance(1);
  assert.equal(b.verdict(key("192.0.2.1")), undefined);
});

bench("all addresses of allowed hosts are attested ahead of time, on the rule's ports", async (b) => {
  b.addresses.set("api.example.com", [{ address: "192.0.2.1" }, { address: "2001:db8::1" }]);
  b.attestor.setRules([rule("api.example.com"), rule("api.example.com:8443, 192.0.2.9/32, 198.51.100.0/24")]);
  await b.until(() => b.dials.length === 5);
  assert.deepEqual(b.dials.map(({ address, port, name }) => `${name} ${address} ${port}`).sort(), [
    "api.example.com 192.0.2.1 443",
    "api.example.com 192.0.2.1 8443",
    "api.example.com 2001:db8::1 443",
    "api.example.com 2001:db8::1 8443",
    "null 192.0.2.9 443",
  ]);
});

bench("when DNS changes, the new address is attested and the old one let go", async (b) => {
  b.addresses.set("api.example.com", [{ address: "192.0.2.1" }]);
  b.attestor.setRules([rule("api.example.com")]);
  await b.until(() => b.dials.length === 1);
  await b.answer(granted);
  b.addresses.set("api.example.com", [{ address: "192.0.2.2" }]);
  await b.advance(60_000);
  assert.deepEqual(
    b.dials.map(({ address }) => address),
    ["192.0.2.2"],
  );
  await b.answer(granted);
  assert.equal(b.verdict(key("192.0.2.1")), true);
  for (let minute = 0; minute < 12; minute++) await b.advance(60_000);
  for (const { address } of b.dials) assert.equal(address, "192.0.2.2");
  assert.equal(b.sink.get(key("192.0.2.1")), undefined);
});

bench("a name that does not resolve is tried again, and what it had stays", async (b) => {
  b.attestor.setRules([rule("api.example.com")]);
  await b.until(() => b.resolutions === 1);
  b.addresses.set("api.example.com", [{ address: "192.0.2.1" }]);
  await b.advance(30_000);
  await b.answer(granted);
  b.addresses.delete("api.example.com");
  await b.advance(60_000);
  assert.equal(b.verdict(key("192.0.2.1")), true);
});

bench("what no secret allows is refused without a connection", async (b) => {
  b.attestor.setRules([rule("*.example.com:443"), rule("other.example.org", { attest: "dns" })]);
  const asked = [
    key("192.0.2.1", "example.com"),
    key("192.0.2.1", "a.b.example.com"),
    key("192.0.2.1", "a.example.com.evil.org"),
    key("192.0.2.1", ".example.com"),
    key("192.0.2.1", null),
    key("192.0.2.1", "api.example.com", { port: 8443 }),
    key("192.0.2.1", "other.example.org"),
  ];
  for (const each of asked) b.attestor.request(each);
  await b.settled();
  assert.equal(b.dials.length, 0);
  for (const each of asked) assert.equal(b.verdict(each), false);
  assert.deepEqual(new Set(b.told.map(({ failure }) => failure?.reason)), new Set(["not-allowed"]));
});

bench("addresses of the node and of the cloud's metadata are not dialled, in whatever form", async (b) => {
  const everywhere: Host = { kind: "network", address: Buffer.alloc(16), bits: 0, port: undefined };
  b.attestor.setRules([rule([everywhere, ...parseHosts("*.example.com")])]);
  const addresses = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fd00:ec2::254",
    "fe80::1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "ff02::1",
  ];
  for (const address of addresses) {
    b.attestor.request(key(address));
    b.attestor.request(key(address, null));
  }
  await b.settled();
  assert.equal(b.dials.length, 0);
  assert.deepEqual(new Set(b.told.map(({ failure }) => failure?.reason)), new Set(["address-not-allowed"]));
});

bench("mode dns: granted if and only if the name has that address, asked for by us", async (b) => {
  b.addresses.set("api.example.com", [{ address: "192.0.2.1" }]);
  b.attestor.setRules([rule("*.example.com", { attest: "dns" })]);
  const right = key("192.0.2.1", "api.example.com", { mode: "dns" });
  const wrong = key("192.0.2.2", "api.example.com", { mode: "dns" });
  b.attestor.request(right);
  b.attestor.request(wrong);
  await b.until(() => b.told.length === 2);
  assert.deepEqual([b.verdict(right), b.verdict(wrong)], [true, false]);
  assert.deepEqual([b.dials.length, b.resolutions], [0, 1]);
});

bench("mode dns: an address counts for as long as DNS said", async (b) => {
  b.addresses.set("api.example.com", [{ address: "192.0.2.1", ttlSeconds: 200 }]);
  b.attestor.setRules([rule("*.example.com", { attest: "dns" })]);
  const asked = key("192.0.2.1", "api.example.com", { mode: "dns" });
  b.attestor.request(asked);
  await b.until(() => b.told.length === 1);
  await b.advance(199_999);
  assert.equal(b.verdict(asked), true);
  await b.advance(1);
  assert.equal(b.verdict(asked), undefined);
});

bench("mode none: granted at once", async (b) => {
  b.attestor.setRules([rule("192.0.2.0/24", { attest: "none" })]);
  const asked = key("192.0.2.7", null, { mode: "none" });
  b.attestor.request(asked);
  await b.until(() => b.told.length === 1);
  assert.deepEqual([b.verdict(asked), b.dials.length], [true, 0]);
});

bench("rules that go take their verdicts with them", async (b) => {
  b.attestor.setRules([rule("*.example.com")]);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  await b.answer(granted);
  b.attestor.setRules([]);
  assert.equal(b.sink.get(key("192.0.2.1")), undefined);
});

bench("an attempt that was under way when its rule went counts for nothing", async (b) => {
  b.attestor.setRules([rule("*.example.com")]);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  b.attestor.setRules([]);
  await b.answer(granted);
  assert.equal(b.sink.get(key("192.0.2.1")), undefined);
});

bench(
  "at most so many connections at a time, and half of them for addresses that we have resolved",
  async (b) => {
    b.attestor.setRules([rule("*.example.com")]);
    for (let host = 1; host <= 20; host++) b.attestor.request(key(`192.0.2.${host}`));
    await b.settled();
    assert.equal(b.dials.length, 2);
    b.addresses.set("known.example.com", [{ address: "198.51.100.1" }]);
    b.attestor.setRules([rule("*.example.com"), rule("known.example.com")]);
    await b.until(() => b.dials.length === 3);
    assert.equal(b.dials[2]?.address, "198.51.100.1");
  },
  { concurrency: 4 },
);

bench(
  "a workload that asks for many addresses does not keep another from its one",
  async (b) => {
    b.attestor.setRules([rule("*.example.com")]);
    for (let host = 1; host <= 200; host++) b.attestor.request(key(`192.0.2.${host}`), 1);
    await b.settled();
    assert.equal(b.attestor.size.entries, 32);
    b.attestor.request(key("198.51.100.1"), 2);
    await b.answer(refused("timeout", true));
    assert.ok(b.dials.some(({ address }) => address === "198.51.100.1"));
  },
  { concurrency: 4 },
);

bench(
  "memory is bounded, and granted verdicts are not pushed out by refused ones",
  async (b) => {
    b.attestor.setRules([rule("*.example.com:443")]);
    b.attestor.request(key("192.0.2.1"));
    await b.settled();
    await b.answer(granted);
    for (let port = 1000; port < 3000; port++) b.attestor.request(key("192.0.2.9", "api.example.com", { port }));
    assert.equal(b.attestor.size.entries, 50);
    assert.equal(b.sink.verdicts.size, 50);
    assert.equal(b.verdict(key("192.0.2.1")), true);
  },
  { entries: 50 },
);

bench("extra roots apply to the names of the secrets that bring them", async (b) => {
  const contexts: string[][] = [];
  class Seen extends Roots {
    override context(extra: readonly string[]): ReturnType<Roots["context"]> {
      contexts.push([...extra]);
      return super.context([]);
    }
  }
  const own = new Bench({}, { roots: new Seen([]) });
  try {
    own.attestor.setRules([
      rule("*.example.com", { roots: ["A"] }),
      rule("api.example.com:443", { roots: ["B"] }),
      rule("*.example.org", { roots: ["C"] }),
    ]);
    own.attestor.request(key("192.0.2.1", "api.example.com"));
    own.attestor.request(key("192.0.2.1", "www.example.com"));
    own.attestor.request(key("192.0.2.1", "www.example.org"));
    await own.settled();
    assert.deepEqual(contexts, [["A", "B"], ["A"], ["C"]]);
  } finally {
    await own.close();
  }
  await b.settled();
});

bench("when roots change, the verdict is taken back and made again", async (b) => {
  b.attestor.setRules([rule("*.example.com")]);
  b.attestor.request(key("192.0.2.1"));
  await b.settled();
  b.attestor.request(key("192.0.2.1"));
  await b.answer(granted);
  b.attestor.request(key("192.0.2.1"));
  // Node's own roots, any of them: what counts is that the set is another.
  b.attestor.setRules([rule("*.example.com", { roots: [(await import("node:tls")).rootCertificates[0] ?? ""] })]);
  assert.equal(b.sink.get(key("192.0.2.1")), undefined);
  await b.settled();
  assert.equal(b.dials.length, 1);
});
