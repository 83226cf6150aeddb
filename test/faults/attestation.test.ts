/*
 * The promise: an attestation server that hangs, answers slowly or changes its certificate, names whose addresses change,
 * and clocks that are set: what was proven holds for as long as it was given, and not longer; then requests are inert,
 * with a reason in the trail. Time is the agent's own (clock.c). Needs root.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createAuthority } from "../../src/lab/certificates.ts";
import { writeHostsFile } from "../../src/lab/names.ts";
import { host, World } from "../support/world.ts";
import { Peer, type PeerPlan, Site, story } from "./peer.ts";

const minute = 60;
const day = 24 * 60 * minute;
/** docs/attestation.md: a grant holds ten minutes and is renewed after eight, a refusal holds 30 seconds. */
const [renewal, expiry, refusal] = [9 * minute, 11 * minute, 31];

const world = await World.create();
const { namespace, authority, directory } = world;
const names = { dns: [host], ip: [namespace.ipv4.inside] };
const good = authority.issue("fault-good", names);
const certificates = {
  "for another name": authority.issue("fault-name", { dns: ["another.kloak.test"] }),
  "of another authority": createAuthority(directory, "fault-stranger").issue("fault-stranger-leaf", names),
  "that has expired": authority.issue("fault-expired", { ...names, days: -1 }),
};
const served: PeerPlan = { certificate: good, agent: "served" };
const peer = await Peer.start(namespace, served);
after(async () => {
  await peer.close();
  await world.close();
});

/** Another address of the same machine. */
const address = namespace.ipv4.inside;
const moved = namespace.ipv6.inside;

function resolveTo(addresses: readonly string[]): void {
  writeHostsFile(world.hostsFile, addresses.length === 0 ? {} : { [host]: addresses });
}

/** Runs a story on a site of its own; its trail is told once it has ended. */
async function play(body: (site: Site) => Promise<void>, secret = {}): Promise<string[]> {
  resolveTo([address]);
  await peer.plan(served);
  const site = new Site(world, peer, secret);
  try {
    await body(site);
  } finally {
    await peer.plan(served);
  }
  return story(await site.end());
}

for (const agent of ["hangs", "drips"] as const) {
  test(`a server that ${agent} from the beginning: held, then inert`, async () => {
    const trail = await play(async (site) => {
      await peer.plan({ certificate: good, agent });
      assert.equal(await site.ask(address), "placeholder");
    });
    assert.ok(
      ["refused attestation-failed", "refused not-attested"].includes(trail.join()),
      `the trail says: ${trail.join()}`,
    );
  });

  test(`a server that ${agent} when it is asked again: what was proven holds until it expires`, async () => {
    const trail = await play(async (site) => {
      assert.equal(await site.ask(address), "secret");
      const { visits } = peer;
      await peer.plan({ certificate: good, agent });
      site.clock.pass(renewal);
      assert.equal(await site.ask(address), "secret");
      while (peer.visits === visits) assert.equal(await site.ask(address), "secret");
      site.clock.pass(expiry - renewal);
      assert.equal((await site.until("placeholder", address)).at(-1), "placeholder");
    });
    assert.deepEqual(trail.slice(0, 1), ["substituted"]);
    assert.match(trail.at(-1) ?? "", /^refused (attestation-failed|not-attested)$/);
    assert.equal(trail.length, 2);
  });
}

for (const [what, certificate] of Object.entries(certificates)) {
  test(`a server that changes to a certificate ${what}: nothing more, until it has the right one again`, async () => {
    const trail = await play(async (site) => {
      assert.equal(await site.ask(address), "secret");
      await peer.plan({ certificate, agent: "served" });
      site.clock.pass(renewal);
      assert.equal((await site.until("placeholder", address)).at(-1), "placeholder");
      assert.equal(await site.ask(address), "placeholder");
      await peer.plan(served);
      site.clock.pass(refusal);
      assert.equal((await site.until("secret", address)).at(-1), "secret");
    });
    assert.deepEqual(trail, ["substituted", "refused attestation-failed", "substituted"]);
  });
}

for (const [what, step] of [
  ["on, past the certificate's end", 60 * day],
  ["back, before its beginning", -60 * day],
] as const) {
  test(`the wall clock is set ${what}: the verdict stands, the next one is a refusal, until the clock is right`, async () => {
    const trail = await play(async (site) => {
      assert.equal(await site.ask(address), "secret");
      site.clock.set(step);
      assert.equal(await site.ask(address), "secret");
      site.clock.pass(renewal);
      assert.equal((await site.until("placeholder", address)).at(-1), "placeholder");
      site.clock.set(-step);
      site.clock.pass(refusal);
      assert.equal((await site.until("secret", address)).at(-1), "secret");
    });
    assert.deepEqual(trail, ["substituted", "refused attestation-failed", "substituted"]);
  });
}

test("the wall clock is set back: no verdict lives longer for that", async () => {
  const trail = await play(async (site) => {
    assert.equal(await site.ask(address), "secret");
    site.clock.set(-3600);
    await peer.plan({ certificate: good, agent: "hangs" });
    site.clock.pass(expiry);
    assert.equal((await site.until("placeholder", address)).at(-1), "placeholder");
  });
  assert.equal(trail.length, 2);
});

test("DNS moves the name to another address: both are attested, each by its own certificate", async () => {
  const trail = await play(async (site) => {
    assert.equal(await site.ask(address), "secret");
    resolveTo([moved]);
    assert.equal(await site.ask(moved), "secret");
    assert.equal(await site.ask(address), "secret");
  });
  assert.deepEqual(trail, ["substituted"]);
});

const answers: Readonly<Record<string, readonly string[]>> = {
  "another address": [moved],
  nothing: [],
  "a metadata service": ["169.254.169.254"],
};
for (const [what, answer] of Object.entries(answers)) {
  test(`attest: dns, and DNS changes to ${what}: the old address counts until its time is over`, async () => {
    const trail = await play(
      async (site) => {
        assert.equal(await site.ask(address), "secret");
        resolveTo(answer);
        assert.equal(await site.ask(address), "secret");
        /* What was resolved before counts for five minutes, and what was granted on it no longer. */
        site.clock.pass(expiry);
        assert.equal((await site.until("placeholder", address)).at(-1), "placeholder");
        if (answer.includes(moved)) assert.equal((await site.until("secret", moved)).at(-1), "secret");
        resolveTo([address]);
        site.clock.pass(2 * minute);
        assert.equal((await site.until("secret", address)).at(-1), "secret");
      },
      { attest: "dns" },
    );
    assert.deepEqual(trail, ["substituted", "refused attestation-failed", "substituted"]);
  });
}

test("attest: dns, and an address that DNS has never given", async () => {
  const trail = await play(
    async (site) => {
      assert.equal(await site.ask(moved), "placeholder");
      assert.equal(await site.ask(address), "secret");
    },
    { attest: "dns" },
  );
  assert.deepEqual(trail, ["refused attestation-failed", "substituted"]);
});

test("a poisoned answer leads to a machine with another certificate: inert there, and nowhere else", async () => {
  const stranger = await Peer.start(namespace, { certificate: certificates["of another authority"], agent: "served" });
  try {
    resolveTo([moved]);
    const site = new Site(world, stranger);
    assert.equal(await site.ask(moved), "placeholder");
    assert.deepEqual(story(await site.end()), ["refused attestation-failed"]);
  } finally {
    await stranger.close();
  }
});
