/*
 * A data plane that outlives the process that loaded it: its maps and its probes, pinned in a BPF file system.
 *
 *   STATE/                         0700, root's
 *     v1/                          what is below, in this arrangement; renamed to this name when it is complete
 *       maps/NAME
 *       links/PLACE/SIGN/PROGRAM   a probe on a function of a file: where the file lies, what the probe relies on
 *       exec                       the link that reports every exec
 *     v1-new/                      of an agent that died before it had made all of it
 */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { KloakError } from "../errors.ts";
import { BpfMap } from "./map.ts";
import { isNativeError, loadNative, type MapHandle } from "./native.ts";
import { type Link, openLink, pinLink } from "./object.ts";
import { differences, type Shapes } from "./shape.ts";
import { mapTypes } from "./types.gen.ts";

export const usualState = "/sys/fs/bpf/kloak";

/** Of the arrangement above. */
const arrangement = 1;
const current = `v${arrangement}`;
const unfinished = `${current}-new`;
/** statfs(2): BPF_FS_MAGIC */
const bpffsMagic = 0xcafe4a11;
const manifestBytes = 32768;

/** What is pinned with the maps, for whoever comes later. */
export interface Manifest {
  /** Version of Kloak that made the maps. */
  readonly kloak: string;
  readonly made: string;
  readonly shapes: Shapes;
}

export interface Kept {
  readonly maps: ReadonlyMap<string, MapHandle>;
  readonly macKey: Buffer;
  readonly manifest: Manifest;
}

/** Where a probe of a file is kept. */
export interface LinkPlace {
  /** Which file: device and inode. */
  readonly place: string;
  /** What of its content the probes rely on. */
  readonly sign: string;
}

export class Pins {
  readonly state: string;
  readonly #warn: (message: string) => void;
  /** Of the folder v1, to see when another stands in its place. */
  #identity: bigint | undefined;

  /**
   * @throws KloakError `bpffs-missing`, or `state-foreign` if the folder is not root's alone
   */
  constructor(state: string, warn: (message: string) => void = () => undefined) {
    this.state = state;
    this.#warn = warn;
    this.#check();
  }

  get folder(): string {
    return join(this.state, current);
  }

  /** Whether there is anything to take over. */
  get exists(): boolean {
    return existsSync(this.folder);
  }

  /**
   * The maps of an earlier agent, if there are any. Changes nothing.
   * @throws KloakError `state-differs` naming what is not as `shapes` has it, `state-damaged` naming what is missing
   */
  open(shapes: Shapes): Kept | undefined {
    const other = readdirSync(this.state).find((name) => /^v\d+$/.test(name) && name !== current);
    if (other !== undefined) throw this.#differs([`arrangement ${other} instead of ${current}`], undefined);
    if (!this.exists) return undefined;
    const maps = new Map<string, MapHandle>();
    try {
      const manifestMap = this.#map("manifest");
      maps.set("manifest", manifestMap);
      const manifest = readManifest(manifestMap);
      if (manifest === undefined) throw this.#damaged("its manifest cannot be read");
      const found = differences(shapes, manifest.shapes);
      if (found.length > 0) throw this.#differs(found, manifest);
      for (const name of Object.keys(manifest.shapes.maps)) if (!maps.has(name)) maps.set(name, this.#map(name));
      const hashKey = maps.get("hash_key");
      const macKey = hashKey && loadNative().mapLookup(hashKey, Buffer.alloc(4));
      if (macKey === undefined || macKey.length !== 16) throw this.#damaged("its key cannot be read");
      this.#identity = this.#inode();
      return { maps, macKey, manifest };
    } catch (error) {
      for (const handle of maps.values()) loadNative().mapClose(handle);
      throw error;
    }
  }

  /** Pins new maps. All of them are there afterwards, or nothing is. */
  create(maps: ReadonlyMap<string, MapHandle>): void {
    this.#check();
    const folder = join(this.state, unfinished);
    rmSync(folder, { recursive: true, force: true });
    for (const name of ["", "maps", "links"]) mkdirSync(join(folder, name), { mode: 0o700 });
    for (const [name, handle] of maps) loadNative().mapPin(handle, join(folder, "maps", name));
    renameSync(folder, this.folder);
    this.#identity = this.#inode();
  }

  /** Maps that an earlier version did not have. */
  add(maps: ReadonlyMap<string, MapHandle>): void {
    for (const [name, handle] of maps) {
      const path = join(this.folder, "maps", name);
      if (!existsSync(path)) loadNative().mapPin(handle, path);
    }
  }

  /** Removes what an agent that died has left half done. Only while no other agent is at work. */
  tidy(): void {
    const half = join(this.state, unfinished);
    if (existsSync(half)) {
      this.#warn(`${half} was left half done by an agent that died: removed`);
      rmSync(half, { recursive: true, force: true });
    }
    for (const name of readdirSync(this.state)) {
      if (name !== current) this.#warn(`${join(this.state, name)} is none of Kloak's: left alone`);
    }
  }

  /** False when the folder is gone or another: somebody has removed it, or mounted over it. */
  get intact(): boolean {
    return this.#identity !== undefined && this.#inode() === this.#identity;
  }

  /** Pins a probe that is attached. */
  keepLink(link: Link, { place, sign }: LinkPlace, program: string): void {
    const folder = join(this.folder, "links", place, sign);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    pinLink(link, join(folder, program));
  }

  keptLink({ place, sign }: LinkPlace, program: string): Link | undefined {
    return this.#link(join(this.folder, "links", place, sign, program));
  }

  /** Ends the probe of a file as soon as no descriptor holds it. */
  dropLink({ place, sign }: LinkPlace, program: string): void {
    rmSync(join(this.folder, "links", place, sign, program), { force: true });
  }

  /** Every file that has probes. */
  places(): LinkPlace[] {
    const folder = join(this.folder, "links");
    return namesIn(folder).flatMap((place) => namesIn(join(folder, place)).map((sign) => ({ place, sign })));
  }

  dropPlace({ place, sign }: LinkPlace): void {
    rmSync(join(this.folder, "links", place, sign), { recursive: true, force: true });
    if (namesIn(join(this.folder, "links", place)).length === 0)
      rmSync(join(this.folder, "links", place), { recursive: true, force: true });
  }

  /** Pins the link that reports execs in place of the one that is there. It is attached: none goes unheard. */
  keepExec(link: Link): void {
    const path = join(this.folder, "exec");
    rmSync(path, { force: true });
    pinLink(link, path);
  }

  /**
   * Removes all of it, and lets nothing pass any more on the wires that it watched: what it has patched would go out
   * unpatched when TCP sends it again.
   * @throws KloakError `state-damaged` if it cannot be found out which these are
   */
  discard(): void {
    if (this.exists) {
      const handle = this.#map("interfaces");
      try {
        const { key, value } = mapTypes.interfaces;
        const interfaces = new BpfMap(handle, key, value);
        for (const [ifindex, entry] of interfaces.entriesNow()) interfaces.set(ifindex, { ...entry, leaseNs: 1n });
      } catch (cause) {
        throw this.#damaged("its interfaces cannot be read", cause);
      } finally {
        loadNative().mapClose(handle);
      }
    }
    for (const name of readdirSync(this.state))
      if (/^v\d+(-new)?$/.test(name)) rmSync(join(this.state, name), { recursive: true, force: true });
    this.#identity = undefined;
  }

  #check(): void {
    const parent = dirname(this.state);
    if (!existsSync(parent) || statfsSync(parent).type !== bpffsMagic) {
      const next = "mount it with `mount -t bpf bpf /sys/fs/bpf`, or name a folder in another with --state";
      throw new KloakError(
        "bpffs-missing",
        `${parent} is not in a BPF file system, where state outlives an agent: ${next}`,
      );
    }
    mkdirSync(this.state, { recursive: true, mode: 0o700 });
    const stat = lstatSync(this.state);
    const owner = process.geteuid?.() ?? 0;
    if (!stat.isDirectory() || stat.uid !== owner) {
      const what = stat.isDirectory() ? `belongs to user ${stat.uid}` : "is no folder";
      const next = "find out who made it, remove it, and start again";
      throw new KloakError("state-foreign", `${this.state} ${what}: what is in it cannot be trusted; ${next}`);
    }
    if ((stat.mode & 0o077) !== 0) {
      this.#warn(
        `${this.state} had mode ${(stat.mode & 0o777).toString(8)}: others could read secrets in it; set to 700`,
      );
      chmodSync(this.state, 0o700);
    }
  }

  #inode(): bigint | undefined {
    const stat = statSync(this.folder, { bigint: true, throwIfNoEntry: false });
    return stat && (stat.dev << 64n) | stat.ino;
  }

  #map(name: string): MapHandle {
    const path = join(this.folder, "maps", name);
    try {
      const handle = loadNative().mapOpen(path, name);
      try {
        loadNative().mapInfo(handle);
        return handle;
      } catch (cause) {
        loadNative().mapClose(handle);
        throw cause;
      }
    } catch (cause) {
      throw this.#damaged(
        isNativeError(cause) && cause.code === "ENOENT" ? `map ${name} is missing` : `${path} is no map`,
        cause,
      );
    }
  }

  #link(path: string): Link | undefined {
    try {
      return openLink(path);
    } catch (error) {
      if (!isNativeError(error)) throw error;
      if (error.code !== "ENOENT") rmSync(path, { force: true });
      return undefined;
    }
  }

  #differs(found: readonly string[], manifest: Manifest | undefined): KloakError {
    const who = manifest === undefined ? "another version" : `version ${manifest.kloak}`;
    return new KloakError(
      "state-differs",
      `The data plane in ${this.state} was made by ${who} of Kloak and is arranged differently: ${found.join("; ")}. ` +
        "It goes on with what it has. Run that version again, or move the workloads away and start with --discard, " +
        "which cuts their network",
    );
  }

  #damaged(what: string, cause?: unknown): KloakError {
    return new KloakError(
      "state-damaged",
      `The data plane in ${this.folder} is damaged: ${what}. Move the workloads away and start with --discard, which ` +
        "cuts their network",
      { cause },
    );
  }
}

/** Fills the maps that no program looks at, and closes them to changes. */
export function writeManifest(maps: ReadonlyMap<string, MapHandle>, manifest: Manifest, macKey: Buffer): void {
  const native = loadNative();
  const text = Buffer.from(JSON.stringify(manifest));
  if (text.length > manifestBytes) throw new RangeError(`the manifest has ${text.length} bytes`);
  for (const [name, value] of [
    ["manifest", Buffer.concat([text, Buffer.alloc(manifestBytes - text.length)])],
    ["hash_key", macKey],
  ] as const) {
    const handle = maps.get(name);
    if (handle === undefined) throw new KloakError("no-map", `map ${name} is not loaded`);
    native.mapUpdate(handle, Buffer.alloc(4), value);
    native.mapFreeze(handle);
  }
}

function readManifest(handle: MapHandle): Manifest | undefined {
  try {
    const bytes = loadNative().mapLookup(handle, Buffer.alloc(4)) ?? Buffer.alloc(0);
    const end = bytes.indexOf(0);
    const data = JSON.parse(bytes.toString("utf8", 0, end < 0 ? bytes.length : end)) as Manifest;
    return typeof data.shapes?.maps === "object" && typeof data.shapes.enums === "object" ? data : undefined;
  } catch {
    return undefined;
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
