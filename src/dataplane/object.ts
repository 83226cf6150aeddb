import { KloakError } from "../errors.ts";
import type { Codec } from "./codec.ts";
import { BpfMap } from "./map.ts";
import {
  type Direction,
  isNativeError,
  type LinkHandle,
  loadNative,
  type MapHandle,
  type ObjectHandle,
  type ProgramInfo,
  type TestRun,
  type TestRunResult,
} from "./native.ts";

/** A program that is attached; it runs until this is closed, or our process ends. */
export interface Link {
  close(): void;
}

/** Programs that sit on functions of files. */
const KPROBE = 2;
/** BPF_TRACE_UPROBE_MULTI, Linux 6.6: many offsets of a file in one link, and processes filtered by the kernel. */
const UPROBE_MULTI = 48;

export interface LoadOptions {
  /** Variables of .rodata, .data or .bss by name; those that the object does not have are left out. */
  readonly variables?: Readonly<Record<string, Uint8Array>>;
  /** Maps that it shares instead of making its own; names that the object does not have are left out. */
  readonly maps?: ReadonlyMap<string, MapHandle>;
  /** Entries of maps, other than the source says. */
  readonly entries?: Readonly<Record<string, number>>;
  /** Only these programs. */
  readonly programs?: readonly string[];
  /** Keep the verifier's statistics for `program().log`. */
  readonly statistics?: boolean;
}

/** One loaded BPF object file, such as build/bpf/wire.bpf.o. Tests use it for their own objects. */
export class BpfObject {
  readonly path: string;
  readonly programs: readonly { readonly name: string; readonly section: string; readonly type: number }[];
  readonly mapNames: readonly string[];
  readonly #handle: ObjectHandle;
  readonly #multi: boolean;

  /** @throws KloakError `bad-object`, with the verifier's log as its cause's `log` */
  constructor(path: string, options: LoadOptions = {}) {
    const native = loadNative();
    this.path = path;
    try {
      this.#handle = native.objectOpen(path);
    } catch (cause) {
      throw new KloakError("no-object", `BPF object ${path} cannot be opened: run \`npm run build\``, { cause });
    }
    const { programs, maps } = native.objectInfo(this.#handle);
    this.programs = programs;
    this.mapNames = maps.map((map) => map.name);
    this.#multi = native.supportsUprobeMulti();
    try {
      for (const [name, value] of Object.entries(options.variables ?? {}))
        native.objectSetVariable(this.#handle, name, value);
      for (const name of this.mapNames) {
        const shared = options.maps?.get(name);
        const entries = options.entries?.[name];
        if (shared) native.objectReuseMap(this.#handle, name, shared);
        else if (entries !== undefined) native.objectSetEntries(this.#handle, name, entries);
      }
      for (const program of programs) {
        const wanted = options.programs?.includes(program.name) ?? true;
        native.objectSetAutoload(this.#handle, program.name, wanted);
        if (this.#multi && isUprobe(program)) native.objectSetAttachType(this.#handle, program.name, UPROBE_MULTI);
      }
      native.objectLoad(this.#handle, options.statistics ?? false);
    } catch (cause) {
      native.objectClose(this.#handle);
      throw new KloakError("bad-object", `BPF object ${path} cannot be loaded: ${reasonOf(cause)}`, { cause });
    }
  }

  hasProgram(name: string): boolean {
    return this.programs.some((program) => program.name === name);
  }

  program(name: string): ProgramInfo {
    return loadNative().programInfo(this.#handle, name);
  }

  mapHandle(name: string): MapHandle {
    return loadNative().objectMap(this.#handle, name);
  }

  map<K, V>(name: string, key: Codec<K>, value: Codec<V>): BpfMap<K, V> {
    return new BpfMap(this.mapHandle(name), key, value);
  }

  /**
   * Runs `program` whenever a process reaches one of the offsets into the file at `path`; only process `pid`, if given.
   * The probe belongs to the file (its inode), by whatever path it is mapped.
   */
  attachUprobe(program: string, path: string, offsets: readonly number[], pid = 0): Link {
    return link(loadNative().attachUprobe(this.#handle, program, path, offsets, pid, this.#multi));
  }

  /** Attaches a program to what its section names (`raw_tp/…`, `tp/…`). */
  attach(program: string): Link {
    return link(loadNative().attachProgram(this.#handle, program));
  }

  /** Makes a program an entry of a map of programs, in place of what was there. */
  install(program: string, map: MapHandle, index: number): void {
    loadNative().objectInstall(this.#handle, program, map, index);
  }

  /** As a classifier on an interface, which keeps it until it is detached. Replaces what stands at that place. */
  attachTc(program: string, ifindex: number, direction: Direction, place: TcPlace, netns?: string): void {
    loadNative().tcAttach(this.#handle, program, ifindex, direction, place.handle, place.priority, netns);
  }

  testRun(program: string, options?: TestRun): TestRunResult {
    return loadNative().testRun(this.#handle, program, options);
  }

  close(): void {
    loadNative().objectClose(this.#handle);
  }
}

/** Where a classifier stands among those of an interface: `tc filter … pref PRIORITY … handle HANDLE`. */
export interface TcPlace {
  readonly handle: number;
  readonly priority: number;
}

const handles = new WeakMap<Link, LinkHandle>();

function link(handle: LinkHandle): Link {
  const made: Link = { close: () => loadNative().linkClose(handle) };
  handles.set(made, handle);
  return made;
}

/** Pins a link in a BPF file system: it then outlives `close` and this process, until the file is removed. */
export function pinLink(made: Link, path: string): void {
  const handle = handles.get(made);
  if (handle === undefined) throw new TypeError("only a link of one program can be pinned");
  loadNative().linkPin(handle, path);
}

/** @throws NativeError `ENOENT` if nothing is pinned there, `EINVAL` if it is no link */
export function openLink(path: string): Link {
  return link(loadNative().linkOpen(path));
}

/** Closes links as fast as the kernel lets go of the slowest of them. */
export function closeLinks(links: Iterable<Link>): void {
  const all = [...links];
  loadNative().linksClose(all.flatMap((each) => handles.get(each) ?? []));
  for (const each of all) if (!handles.has(each)) each.close();
}

function isUprobe(program: { readonly section: string; readonly type: number }): boolean {
  return program.type === KPROBE && program.section.startsWith("uprobe");
}

function reasonOf(cause: unknown): string {
  if (!isNativeError(cause)) return String(cause);
  if (cause.code === "EPERM") return "not permitted: run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";
  const lines = (cause.log ?? "").trimEnd().split("\n").slice(-12);
  return [cause.message, ...lines].join("\n  ");
}
