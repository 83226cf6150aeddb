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
import { loadNative, type MapHandle, projectRoot, type RingHandle } from "./native.ts";
import { BpfObject, closeLinks, type Link, type TcPlace } from "./object.ts";
import { siphash } from "./siphash.ts";
import { Sweeper } from "./sweeper.ts";
import { counter, type Event, eventCodec, layouts, mapTypes } from "./types.gen.ts";

/** Objects in the order of loading: the first that has a map makes it, the later ones share it. */
export const objectNames = ["wire", "cipher/openssl", "process"] as const;
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
}

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
}

export type Counters = Readonly<Record<Exclude<keyof typeof counter, "count">, bigint>>;

/** Our place among the classifiers of an interface. */
const place: TcPlace = { handle: 0x6b, priority: 1 };

export async function openDataplane(options: DataplaneOptions = {}): Promise<Dataplane> {
  const objectDir = options.objectDir ?? join(projectRoot, "build/bpf");
  const macKey = Buffer.from(options.macKey ?? randomBytes(16));
  if (macKey.length !== 16) throw new RangeError(`macKey has 16 bytes, not ${macKey.length}`);
  const objects = new Map<ObjectName, BpfObject>();
  const handles = new Map<string, MapHandle>();
  try {
    for (const name of objectNames) {
      if (options.objects && !options.objects.includes(name)) continue;
      const path = join(objectDir, `${name}.bpf.o`);
      if (!existsSync(path)) throw new KloakError("no-object", `BPF object ${path} is missing: run \`npm run build\``);
      await checkLayouts(path);
      const object = new BpfObject(path, {
        variables: { ...options.variables, mac_key: macKey },
        maps: handles,
        entries: options.entries ?? {},
      });
      objects.set(name, object);
      for (const map of object.mapNames)
        if (!map.includes(".") && !handles.has(map)) handles.set(map, object.mapHandle(map));
    }
    return new Dataplane(objects, handles, macKey);
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
  #ring: RingHandle | undefined;

  /** Use openDataplane. */
  constructor(objects: ReadonlyMap<ObjectName, BpfObject>, handles: ReadonlyMap<string, MapHandle>, macKey: Buffer) {
    this.objects = objects;
    this.macKey = macKey;
    this.#handles = handles;
    this.maps = typedMaps(handles);
    this.sweeper = new Sweeper(this.maps);
  }

  /** The object that has this program. */
  objectOf(program: string): BpfObject {
    for (const object of this.objects.values()) if (object.hasProgram(program)) return object;
    throw new KloakError("no-program", `no loaded BPF object has program ${program}: loaded are ${this.#names()}`);
  }

  attachUprobe(target: UprobeTarget): Link {
    const offsets = typeof target.offset === "number" ? [target.offset] : target.offset;
    return this.#keep(this.objectOf(target.program).attachUprobe(target.program, target.path, offsets, target.pid));
  }

  /** Reports every exec of a workload's process as `event_exec`. */
  attachProcesses(): Link {
    const object = this.objects.get("process");
    if (!object) throw new KloakError("no-object", `BPF object process is not loaded: loaded are ${this.#names()}`);
    const links = object.programs.map((program) => object.attach(program.name));
    return this.#keep({ close: () => links.forEach((link) => link.close()) });
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

  /** Ends all probes and reports. Wire programs stay where they are attached. */
  close(): void {
    this.#closeRing();
    closeLinks(this.#links.values());
    this.#links.clear();
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

  #keep(link: Link): Link {
    const kept: Link = {
      close: () => {
        this.#links.delete(kept);
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
