/**
 * The data plane, as the rest of Kloak sees it: BPF objects loaded with shared maps, typed access to those maps, ways to
 * attach, and what the kernel reports.
 *
 *   await using dataplane = await openDataplane();
 *   dataplane.maps.workloads.set(netnsCookie("/proc/4711/ns/net"), { id: 1 });
 *   dataplane.maps.interfaces.set(ifindex, { workload: 1, leaseNs: 0n });
 *   dataplane.attachWire(ifindex);
 *   const link = dataplane.attachUprobe({ program: "openssl_cipher_update", path, offset: 0x1234 });
 *   const stop = dataplane.events((event) => …);
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { KloakError } from "../errors.ts";
import { Btf } from "./btf.ts";
import type { Codec } from "./codec.ts";
import { BpfMap } from "./map.ts";
import { Lasting } from "./lasting.ts";
import type { Ledger } from "./ledger.ts";
import { loadNative, type MapHandle, projectRoot, type RingHandle } from "./native.ts";
import { BpfObject, closeLinks, type Link, type TcPlace } from "./object.ts";
import type { LinkPlace, Pins } from "./pins.ts";
import { shapesOf } from "./shape.ts";
import { siphash } from "./siphash.ts";
import { Sweeper } from "./sweeper.ts";
import { counter, type Event, eventCodec, layouts, mapTypes } from "./types.gen.ts";

/** Objects in the order of loading: the first that has a map makes it, the later ones share it. */
export const objectNames = [
  "wire",
  "cipher/seal",
  "cipher/openssl",
  "cipher/go",
  "cipher/gnutls",
  "cipher/java",
  "cipher/aead",
  "cipher/ring",
  "process",
] as const;
export type ObjectName = (typeof objectNames)[number];

export interface DataplaneOptions {
  /** Folder of the objects; build/bpf of this project unless given. */
  readonly objectDir?: string;
  /** All of them unless given. */
  readonly objects?: readonly ObjectName[];
  /** 16 bytes, under which names and records are hashed; random unless given. A test's matter: never log it. */
  readonly macKey?: Uint8Array;
  /** Other read-only variables by name, for tests: `{ require_socket: u32.encode(0) }`. */
  readonly variables?: Readonly<Record<string, Uint8Array>>;
  /** Other sizes of maps than the source gives. */
  readonly entries?: Readonly<Record<string, number>>;
  /** Where it outlives this process, and where that of an earlier one is taken over from. Call `take` when it is ours. */
  readonly pins?: Pins;
}

/** Besides those of the data plane itself, where it is to outlive its agent. */
const lastingObjects = ["ledger", "hook"] as const;

type MapTypes = typeof mapTypes;
type Decoded<C> = C extends Codec<infer T> ? T : never;
export type Maps = {
  readonly [Name in keyof MapTypes]: BpfMap<Decoded<MapTypes[Name]["key"]>, Decoded<MapTypes[Name]["value"]>>;
};

export interface UprobeTarget {
  /** Such as `openssl_cipher_update`. */
  readonly program: string;
  readonly path: string;
  /** Into the file, not an address. */
  readonly offset: number | readonly number[];
  /** Only this process; whoever maps the file unless given. */
  readonly pid?: number;
  /** Where the probe is kept in a data plane with `pins`: it outlives us, and one that is there already is taken over. */
  readonly keep?: LinkPlace;
}

export type Counters = Readonly<Record<Exclude<keyof typeof counter, "count">, bigint>>;

/** Our place among the classifiers of an interface. */
const place: TcPlace = { handle: 0x6b, priority: 1 };

/**
 * @throws KloakError `no-object`, `bad-object`, `layout-drift`; with pins also `state-differs`, `state-damaged`
 */
export async function openDataplane(options: DataplaneOptions = {}): Promise<Dataplane> {
  const objectDir = options.objectDir ?? join(projectRoot, "build/bpf");
  const { pins } = options;
  const names = objectNames.filter((name) => options.objects?.includes(name) ?? true);
  const all = [...names, ...(pins === undefined ? [] : lastingObjects)];
  const files = new Map<string, Buffer>();
  for (const name of all) {
    const path = join(objectDir, `${name}.bpf.o`);
    if (!existsSync(path)) throw new KloakError("no-object", `BPF object ${path} is missing: run \`npm run build\``);
    files.set(path, await readFile(path));
    await checkLayouts(path);
  }
  const shapes = shapesOf(files);
  const kept = pins?.open(shapes);
  const macKey = Buffer.from(kept?.macKey ?? options.macKey ?? randomBytes(16));
  if (macKey.length !== 16) throw new RangeError(`macKey has 16 bytes, not ${macKey.length}`);
  const handles = new Map<string, MapHandle>(kept?.maps);
  const objects = new Map<string, BpfObject>();
  const load = (name: string, variables: Readonly<Record<string, Uint8Array>>) =>
    new BpfObject(join(objectDir, `${name}.bpf.o`), { variables, maps: handles, entries: options.entries ?? {} });
  try {
    for (const name of all) {
      const object = load(name, { ...options.variables, mac_key: macKey });
      objects.set(name, object);
      for (const map of object.mapNames)
        if (!map.includes(".") && !handles.has(map)) handles.set(map, object.mapHandle(map));
    }
    const lasting =
      pins === undefined
        ? undefined
        : new Lasting({
            pins,
            handles,
            shapes,
            macKey,
            fresh: kept === undefined,
            hook: (place) => load("hook", { place }),
          });
    for (const name of lastingObjects) {
      objects.get(name)?.close();
      objects.delete(name);
    }
    return new Dataplane(objects as Map<ObjectName, BpfObject>, handles, macKey, lasting);
  } catch (error) {
    for (const handle of handles.values()) loadNative().mapClose(handle);
    for (const object of objects.values()) object.close();
    throw error;
  }
}

/** Compares the structs that an object uses with those that our codecs were generated from. */
export async function checkLayouts(path: string): Promise<void> {
  const btf = new Btf(await readFile(path), path);
  for (const type of btf.types) {
    const layout = type.kind === "struct" ? layouts[type.name] : undefined;
    if (layout === undefined || layout === btf.layout(type)) continue;
    throw new KloakError(
      "layout-drift",
      `struct ${type.name} of ${path} is not the one in src/dataplane/types.gen.ts: ` +
        "run `npm run build`, and `npm run generate` if bpf/types has been changed",
    );
  }
}

export class Dataplane implements AsyncDisposable {
  readonly maps: Maps;
  readonly macKey: Buffer;
  readonly objects: ReadonlyMap<ObjectName, BpfObject>;
  readonly sweeper: Sweeper;
  readonly #handles: ReadonlyMap<string, MapHandle>;
  readonly #handlers = new Set<(event: Event) => void>();
  /** By what was handed out for it. */
  readonly #links = new Map<Link, Link>();
  readonly #lasting: Lasting | undefined;
  #ring: RingHandle | undefined;

  /** Use openDataplane. */
  constructor(
    objects: ReadonlyMap<ObjectName, BpfObject>,
    handles: ReadonlyMap<string, MapHandle>,
    macKey: Buffer,
    lasting?: Lasting,
  ) {
    this.objects = objects;
    this.macKey = macKey;
    this.#handles = handles;
    this.#lasting = lasting;
    this.maps = typedMaps(handles);
    this.sweeper = new Sweeper(this.maps);
  }

  /** The object that has this program. */
  objectOf(program: string): BpfObject {
    for (const object of this.objects.values()) if (object.hasProgram(program)) return object;
    throw new KloakError("no-program", `no loaded BPF object has program ${program}: loaded are ${this.#names()}`);
  }

  attachUprobe(target: UprobeTarget): Link {
    const { program, path, pid, keep } = target;
    const offsets = typeof target.offset === "number" ? [target.offset] : target.offset;
    const object = this.objectOf(program);
    const lasting = this.#lasting;
    if (lasting === undefined || keep === undefined)
      return this.#keep(object.attachUprobe(program, path, offsets, pid));
    const link = lasting.attach({ program, object, path, offsets, keep });
    return this.#keep(link, () => lasting.drop(link));
  }

  /** Reports every exec of a workload's process as `event_exec`. */
  attachProcesses(): Link {
    const object = this.objects.get("process");
    if (!object) throw new KloakError("no-object", `BPF object process is not loaded: loaded are ${this.#names()}`);
    const link = object.attach("process_exec");
    this.#lasting?.keepExec(link);
    return this.#keep(link);
  }

  /** What is written down for later agents; undefined in a data plane that ends with us. */
  get ledger(): Ledger | undefined {
    return this.#lasting?.ledger;
  }

  /**
   * Makes a data plane with pins ours: from here on its probes run our programs. No other process may be at work on it.
   * @returns whether an earlier agent's was taken over
   * @throws KloakError `state-changed` if another has made or removed it since it was opened: open it again
   */
  take(): boolean {
    return this.#lasting?.take(this.objects) ?? false;
  }

  /** Pins everything again if somebody has removed it; true if so. */
  repair(): boolean {
    return this.#lasting?.repair() ?? false;
  }

  /** Where an earlier agent's probes are, and this one's. */
  keptPlaces(): readonly LinkPlace[] {
    return this.#lasting?.places() ?? [];
  }

  /** Ends the probes of files that `wanted` does not name. */
  dropPlaces(wanted: (place: LinkPlace) => boolean): number {
    return this.#lasting?.dropPlaces(wanted) ?? 0;
  }

  /**
   * Puts both wire programs on the host's end of a workload's veth, where they stay when this process ends: what
   * happens then is decided by the lease in map `interfaces`. Attaching again replaces the programs without a gap.
   * @param netns path of the network namespace that the interface is in, if not ours
   */
  attachWire(ifindex: number, netns?: string): void {
    const wire = this.objectOf("wire_egress");
    wire.attachTc("wire_return", ifindex, "egress", place, netns);
    wire.attachTc("wire_egress", ifindex, "ingress", place, netns);
  }

  /** False if they were not there. */
  detachWire(ifindex: number, netns?: string): boolean {
    const native = loadNative();
    const back = native.tcDetach(ifindex, "egress", place.handle, place.priority, netns);
    return native.tcDetach(ifindex, "ingress", place.handle, place.priority, netns) || back;
  }

  /** Whether wire programs, of this or of an earlier process, are on that interface. */
  wireAttached(ifindex: number, netns?: string): boolean {
    return loadNative().tcQuery(ifindex, "ingress", place.handle, place.priority, netns) !== 0;
  }

  /**
   * Calls `handler` for each event from now on, and for those still waiting in the kernel; returns how to stop. Events
   * that follow each other closely come together, up to 10 ms late.
   */
  events(handler: (event: Event) => void): () => void {
    const events = this.#handles.get("events");
    if (!events) throw new KloakError("no-map", `map events is not loaded: loaded are ${this.#names()}`);
    this.#handlers.add(handler);
    this.#ring ??= loadNative().ringOpen(events, (samples) => this.#dispatch(samples));
    return () => {
      this.#handlers.delete(handler);
      if (this.#handlers.size === 0) this.#closeRing();
    };
  }

  /** Hands out all events that the kernel has reported by now. */
  drainEvents(): void {
    if (this.#ring) loadNative().ringDrain(this.#ring);
  }

  counters(): Counters {
    const sums: Partial<Record<keyof typeof counter, bigint>> = {};
    for (const [name, index] of Object.entries(counter)) {
      if (name === "count") continue;
      const key = Buffer.alloc(4);
      key.writeUInt32LE(index);
      const values = this.maps.counters.getRaw(key) ?? Buffer.alloc(0);
      let sum = 0n;
      for (let at = 0; at < values.length; at += 8) sum += values.readBigUInt64LE(at);
      sums[name as keyof typeof counter] = sum;
    }
    return sums as Counters;
  }

  /** A host's name as the maps have it: lower case and without trailing dot is the caller's duty. */
  hashName(name: string): bigint {
    return siphash(this.macKey, Buffer.from(name, "latin1"));
  }

  /** Ends reports, and all probes but those that are pinned. Wire programs stay where they are attached. */
  close(): void {
    this.#closeRing();
    closeLinks(this.#links.values());
    this.#links.clear();
    this.#lasting?.close();
    for (const handle of this.#handles.values()) loadNative().mapClose(handle);
    for (const object of this.objects.values()) object.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #dispatch(samples: readonly Buffer[]): void {
    for (const sample of samples) {
      const event = eventCodec.decode(sample);
      for (const handler of this.#handlers) handler(event);
    }
  }

  #closeRing(): void {
    if (this.#ring) loadNative().ringClose(this.#ring);
    this.#ring = undefined;
    this.#handlers.clear();
  }

  #keep(link: Link, drop?: () => void): Link {
    const kept: Link = {
      close: () => {
        this.#links.delete(kept);
        drop?.();
        link.close();
      },
    };
    this.#links.set(kept, link);
    return kept;
  }

  #names(): string {
    return [...this.objects.keys()].join(", ") || "none";
  }
}

/** A map that no loaded object has throws when it is first asked for. */
function typedMaps(handles: ReadonlyMap<string, MapHandle>): Maps {
  const maps = {};
  for (const [name, type] of Object.entries(mapTypes)) {
    const handle = handles.get(name);
    const map = handle && new BpfMap<unknown, unknown>(handle, type.key, type.value);
    Object.defineProperty(maps, name, {
      enumerable: map !== undefined,
      get: () => {
        if (map) return map;
        throw new KloakError("no-map", `map ${name} is in none of the loaded BPF objects`);
      },
    });
  }
  return maps as Maps;
}
