/*
 * What makes a data plane outlive its agent, and lets the next one put its own programs behind the same probes.
 */
import { version } from "../version.ts";
import { KloakError } from "../errors.ts";
import { Ledger } from "./ledger.ts";
import { loadNative, type MapHandle } from "./native.ts";
import type { BpfObject, Link } from "./object.ts";
import { type LinkPlace, type Pins, writeManifest } from "./pins.ts";
import type { Shapes } from "./shape.ts";

export interface LastingOptions {
  readonly pins: Pins;
  readonly handles: ReadonlyMap<string, MapHandle>;
  readonly shapes: Shapes;
  readonly macKey: Buffer;
  /** There was nothing to take over. */
  readonly fresh: boolean;
  /** Loads bpf/hook.bpf.c for a place in map `programs`: 4 bytes. */
  readonly hook: (place: Buffer) => BpfObject;
}

interface Probe {
  readonly program: string;
  readonly object: BpfObject;
  readonly path: string;
  readonly offsets: readonly number[];
  readonly keep: LinkPlace;
}

/** In the ledger, kind `head`: 0 is the agent's, 1 has the places of programs. */
const placesEntry = 1;

export class Lasting {
  readonly ledger: Ledger;
  readonly #options: LastingOptions;
  readonly #programs: MapHandle;
  readonly #hooks = new Map<string, BpfObject>();
  readonly #kept = new Map<Link, { readonly keep: LinkPlace; readonly program: string }>();
  #exec: Link | undefined;
  #places: Record<string, number> = {};

  constructor(options: LastingOptions) {
    this.#options = options;
    this.#programs = handleOf(options.handles, "programs");
    this.ledger = new Ledger(handleOf(options.handles, "ledger"));
  }

  take(objects: ReadonlyMap<string, BpfObject>): boolean {
    const { pins, handles, shapes, macKey, fresh } = this.#options;
    if (fresh ? pins.exists : !pins.intact) {
      throw new KloakError("state-changed", `${pins.folder} was changed by another agent: start again`);
    }
    pins.tidy();
    if (fresh) {
      writeManifest(handles, { kloak: version, made: new Date().toISOString(), shapes }, macKey);
      pins.create(handles);
    } else {
      pins.add(handles);
    }
    this.#places = (this.ledger.get("head", placesEntry) as Record<string, number> | undefined) ?? {};
    for (const object of objects.values()) {
      for (const { name } of object.programs) {
        const place = this.#places[name];
        if (place !== undefined) object.install(name, this.#programs, place);
      }
    }
    return !fresh;
  }

  attach({ program, object, path, offsets, keep }: Probe): Link {
    const { pins } = this.#options;
    const there = pins.keptLink(keep, program);
    const link = there ?? this.#hook(program, object).attachUprobe("hook", path, offsets);
    if (there === undefined) pins.keepLink(link, keep, program);
    this.#kept.set(link, { keep, program });
    return link;
  }

  drop(link: Link): void {
    const kept = this.#kept.get(link);
    this.#kept.delete(link);
    if (kept !== undefined) this.#options.pins.dropLink(kept.keep, kept.program);
  }

  keepExec(link: Link): void {
    this.#options.pins.keepExec(link);
    this.#exec = link;
  }

  repair(): boolean {
    const { pins, handles } = this.#options;
    if (pins.intact) return false;
    pins.create(handles);
    for (const [link, { keep, program }] of this.#kept) pins.keepLink(link, keep, program);
    if (this.#exec !== undefined) pins.keepExec(this.#exec);
    return true;
  }

  places(): readonly LinkPlace[] {
    return this.#options.pins.places();
  }

  dropPlaces(wanted: (place: LinkPlace) => boolean): number {
    const { pins } = this.#options;
    const unwanted = pins.places().filter((place) => !wanted(place));
    for (const place of unwanted) pins.dropPlace(place);
    return unwanted.length;
  }

  close(): void {
    for (const object of this.#hooks.values()) object.close();
    this.#hooks.clear();
    this.#kept.clear();
  }

  /** The program that goes on to `program`, which has its place from the first time on that any agent needs it. */
  #hook(program: string, object: BpfObject): BpfObject {
    const known = this.#hooks.get(program);
    if (known !== undefined) return known;
    let place = this.#places[program];
    if (place === undefined) {
      place = Math.max(-1, ...Object.values(this.#places)) + 1;
      object.install(program, this.#programs, place);
      this.#places = { ...this.#places, [program]: place };
      this.ledger.set("head", placesEntry, this.#places);
    }
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(place);
    const hook = this.#options.hook(bytes);
    this.#hooks.set(program, hook);
    return hook;
  }
}

function handleOf(handles: ReadonlyMap<string, MapHandle>, name: string): MapHandle {
  const handle = handles.get(name);
  if (handle === undefined) throw new KloakError("no-map", `map ${name} is not loaded`);
  loadNative().mapInfo(handle);
  return handle;
}
