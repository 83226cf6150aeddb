/* State in a BPF file system: what is taken over, and what is refused. Needs root. */
import assert from "node:assert/strict";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test, type TestContext } from "node:test";
import { type Dataplane, openDataplane } from "../../src/dataplane/dataplane.ts";
import { ledgerKind } from "../../src/dataplane/ledger.ts";
import { loadNative, projectRoot } from "../../src/dataplane/native.ts";
import { Pins } from "../../src/dataplane/pins.ts";
import { meaning } from "../../src/dataplane/shape.ts";
import { KloakError } from "../../src/errors.ts";
import { until } from "../run/kloak.ts";
import { type Bpffs, mountBpffs } from "./bpffs.ts";
import { copyOfLibcrypto, Mapper, type ProbeTarget } from "./probed.ts";

const folder = mkdtempSync(join(tmpdir(), "kloak-pins-"));
after(() => rmSync(folder, { recursive: true }));

const keep = { place: "8-15", sign: "one" };

/** A state made by an agent that has gone. */
async function made(bpffs: Bpffs, use: (dataplane: Dataplane) => void = () => undefined): Promise<Dataplane> {
  const dataplane = await openDataplane({ pins: new Pins(bpffs.state) });
  assert.equal(dataplane.take(), false);
  use(dataplane);
  dataplane.close();
  return dataplane;
}

async function reopened(bpffs: Bpffs): Promise<Dataplane> {
  const dataplane = await openDataplane({ pins: new Pins(bpffs.state) });
  assert.equal(dataplane.take(), true);
  return dataplane;
}

function library(name: string): ProbeTarget {
  return copyOfLibcrypto(join(folder, `${name}.so`));
}

async function mapperOf(context: TestContext, target: ProbeTarget): Promise<Mapper> {
  const mapper = await Mapper.start(target);
  context.after(() => mapper.close());
  return mapper;
}

/** The kernel lets go of a probe some time after its last reference has gone. */
async function gone(mapper: Mapper): Promise<void> {
  await until("the probe to go", () => !mapper.probed);
}

function place(context: TestContext): Bpffs {
  const bpffs = mountBpffs();
  context.after(() => bpffs.close());
  return bpffs;
}

const ofCode = (code: string, pattern: RegExp) => (error: unknown) =>
  error instanceof KloakError && error.code === code && pattern.test(error.message);

test("maps, key, probes and what was written down are there for the next", async (context) => {
  const bpffs = place(context);
  const target = library("lasting");
  const mapper = await mapperOf(context, target);
  const first = await made(bpffs, (dataplane) => {
    dataplane.maps.workloads.set(5n, { id: 6 });
    dataplane.attachUprobe({ ...target, keep });
    dataplane.ledger?.set("secret", 3, { name: "a".repeat(5000) });
    dataplane.ledger?.set("secret", 1, { name: "b" });
  });
  assert.equal(mapper.probed, true, "the probe outlives who attached it");
  await using second = await reopened(bpffs);
  assert.deepEqual(second.macKey, first.macKey);
  assert.equal(second.maps.workloads.get(5n)?.id, 6);
  assert.deepEqual(second.ledger?.numbers("secret"), [1, 3]);
  assert.deepEqual(second.ledger.get("secret", 3), { name: "a".repeat(5000) });
  second.ledger.delete("secret", 3);
  assert.equal(second.ledger.get("secret", 3), undefined);
  const link = second.attachUprobe({ ...target, keep });
  link.close();
  // Had it been attached once more, one of the two would still be there.
  await gone(mapper);
});

test("a probe of a kernel without uprobe_multi lasts as well", async (context) => {
  const bpffs = place(context);
  const target = library("perf");
  const mapper = await mapperOf(context, target);
  const native = loadNative();
  const object = native.objectOpen(join(projectRoot, "build/bpf/hook.bpf.o"));
  native.objectLoad(object);
  const link = native.attachUprobe(object, "hook", target.path, [target.offset], 0, false);
  native.linkPin(link, join(bpffs.path, "perf"));
  native.linkClose(link);
  native.objectClose(object);
  assert.equal(mapper.probed, true);
  rmSync(join(bpffs.path, "perf"));
  await gone(mapper);
});

test("nobody but root can read what is pinned, and the key is closed to changes", async (context) => {
  const bpffs = place(context);
  await made(bpffs);
  assert.equal(statSync(bpffs.state).mode & 0o777, 0o700);
  for (const name of readdirSync(join(bpffs.state, "v1/maps")))
    assert.equal(statSync(join(bpffs.state, "v1/maps", name)).mode & 0o077, 0, name);
  const key = loadNative().mapOpen(join(bpffs.state, "v1/maps/hash_key"), "hash_key");
  assert.throws(() => loadNative().mapUpdate(key, Buffer.alloc(4), Buffer.alloc(16)), /EPERM/);
  loadNative().mapClose(key);
});

/** What may be found in the folder, how it is made, and what becomes of it. */
const unclean: readonly [
  name: string,
  spoil: (bpffs: Bpffs) => void,
  refusal: [code: string, text: RegExp] | undefined,
  warning: RegExp | undefined,
][] = [
  ["as it was left", () => undefined, undefined, undefined],
  [
    "half made by an agent that died",
    ({ state }) => mkdirSync(join(state, "v1-new/maps"), { recursive: true }),
    undefined,
    /v1-new.*removed/,
  ],
  [
    "a stranger's file beside it",
    ({ state }) => mkdirSync(join(state, "other")),
    undefined,
    /other is none of Kloak's/,
  ],
  ["open to others", ({ state }) => chmodSync(state, 0o755), undefined, /had mode 755/],
  [
    "another user's",
    ({ state }) => chownSync(state, 65534, 65534),
    ["state-foreign", /belongs to user 65534/],
    undefined,
  ],
  [
    "of another arrangement",
    ({ state }) => mkdirSync(join(state, "v2")),
    ["state-differs", /v2 instead of v1/],
    undefined,
  ],
  [
    "a map is gone",
    ({ state }) => rmSync(join(state, "v1/maps/flows")),
    ["state-damaged", /map flows is missing.*--discard/],
    undefined,
  ],
  [
    "the manifest is gone",
    ({ state }) => rmSync(join(state, "v1/maps/manifest")),
    ["state-damaged", /manifest/],
    undefined,
  ],
  [
    "a folder where a map was",
    ({ state }) => {
      rmSync(join(state, "v1/maps/flows"));
      mkdirSync(join(state, "v1/maps/flows"));
    },
    ["state-damaged", /flows is no map/],
    undefined,
  ],
];

test("what is found in the folder is taken over, tidied up, or refused with the next step", async (context) => {
  for (const [name, spoil, refusal, warning] of unclean)
    await context.test(name, async (context) => {
      const bpffs = place(context);
      await made(bpffs);
      spoil(bpffs);
      const warnings: string[] = [];
      const open = async () => {
        const dataplane = await openDataplane({ pins: new Pins(bpffs.state, (message) => warnings.push(message)) });
        try {
          return dataplane.take();
        } finally {
          dataplane.close();
        }
      };
      if (refusal === undefined) assert.equal(await open(), true);
      else await assert.rejects(open, ofCode(...refusal));
      if (warning === undefined) assert.deepEqual(warnings, []);
      else assert.match(warnings.join("\n"), warning);
    });
});

test("a place that is no BPF file system is refused, with how to get one", () => {
  assert.throws(() => new Pins("/run/kloak-test-state"), ofCode("bpffs-missing", /mount -t bpf/));
});

test("maps of another layout are refused, naming which", async (context) => {
  const bpffs = place(context);
  await made(bpffs);
  const pins = new Pins(bpffs.state);
  const kept = pins.open({ meaning, maps: {}, enums: {} });
  assert.ok(kept);
  for (const handle of kept.maps.values()) loadNative().mapClose(handle);
  const { shapes } = kept.manifest;
  const differing = (change: object) => () => pins.open({ ...shapes, ...change });
  const maps = { ...shapes.maps, flows: "0".repeat(16) };
  assert.throws(differing({ maps }), ofCode("state-differs", /version 0\.1\.0 .*: map flows\. It goes on/));
  const enums = { ...shapes.enums, flowState: { ...shapes.enums["flowState"], dead: 9 } };
  assert.throws(differing({ enums }), ofCode("state-differs", /enum flowState \(dead\)/));
  assert.throws(differing({ meaning: meaning + 1 }), ofCode("state-differs", /meaning 1 instead of 2/));
  const more = pins.open({
    ...shapes,
    maps: { ...shapes.maps, new_map: "1" },
    enums: { ...shapes.enums, more: { a: 1 } },
  });
  assert.ok(more, "what is new to one side is no difference");
  for (const handle of more.maps.values()) loadNative().mapClose(handle);
});

test("of two that find nothing, one makes the state and the other begins again", async (context) => {
  const bpffs = place(context);
  await using first = await openDataplane({ pins: new Pins(bpffs.state) });
  await using second = await openDataplane({ pins: new Pins(bpffs.state) });
  assert.equal(first.take(), false);
  assert.throws(() => second.take(), ofCode("state-changed", /start again/));
});

test("what is wiped while we run is made whole, probes and all", async (context) => {
  const bpffs = place(context);
  const target = library("wiped");
  const mapper = await mapperOf(context, target);
  await using dataplane = await openDataplane({ pins: new Pins(bpffs.state) });
  dataplane.take();
  dataplane.attachUprobe({ ...target, keep });
  dataplane.maps.workloads.set(5n, { id: 6 });
  assert.equal(dataplane.repair(), false);
  rmSync(bpffs.state, { recursive: true });
  assert.equal(mapper.probed, true, "we hold it");
  assert.equal(dataplane.repair(), true);
  dataplane.close();
  await using next = await reopened(bpffs);
  assert.equal(next.maps.workloads.get(5n)?.id, 6);
  assert.equal(mapper.probed, true);
  assert.equal(
    next.dropPlaces(({ sign }) => sign !== "one"),
    1,
  );
  await gone(mapper);
});

test("entries of the ledger do not run into each other", async (context) => {
  const bpffs = place(context);
  await made(bpffs, ({ ledger }) => {
    assert.ok(ledger);
    for (const kind of ["head", "workload", "secret"] as const) ledger.set(kind, 7, { kind, long: "x".repeat(3000) });
    ledger.set("workload", 7, { short: true });
  });
  await using dataplane = await reopened(bpffs);
  const { ledger } = dataplane;
  assert.ok(ledger);
  assert.deepEqual(Object.keys(ledgerKind), ["head", "workload", "secret"]);
  assert.deepEqual(ledger.get("workload", 7), { short: true });
  assert.deepEqual(ledger.get("secret", 7), { kind: "secret", long: "x".repeat(3000) });
  assert.deepEqual(ledger.numbers("workload"), [7]);
});

test("no mount is left", () => {
  const bpffs = mountBpffs();
  bpffs.close();
  assert.throws(() => rmdirSync(bpffs.path), /ENOENT/);
});
