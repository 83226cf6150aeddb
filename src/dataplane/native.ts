import { createRequire } from "node:module";
import { join } from "node:path";
import { KloakError } from "../errors.ts";

/**
 * The addon of native/, as it is: handles are opaque, sizes must fit exactly, and a system call's failure is a
 * NativeError. Use BpfObject, BpfMap and openDataplane rather than this.
 */
export interface NativeError extends Error {
  /** Name of the errno: `EPERM`. */
  readonly code: string;
  readonly errno: number;
  /** What libbpf said, with the verifier's log of a program that did not load. */
  readonly log?: string;
}

declare const handle: unique symbol;
export type ObjectHandle = { readonly [handle]: "object" };
export type MapHandle = { readonly [handle]: "map" };
export type LinkHandle = { readonly [handle]: "link" };
export type RingHandle = { readonly [handle]: "ring" };

export interface MapInfo {
  readonly name: string;
  readonly type: number;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly entries: number;
}

export interface ProgramInfo {
  readonly id: number;
  readonly type: number;
  /** That the verifier went through; 0 before Linux 5.16. */
  readonly instructions: number;
  readonly bytes: number;
  readonly jitedBytes: number;
  /** Eight bytes an instruction (struct bpf_insn), as the verifier was given them: the program, then its functions. */
  readonly code: Buffer;
  /** The verifier's, if statistics were asked for. */
  readonly log: string;
}

export type Direction = "ingress" | "egress";

export interface TestRun {
  readonly data?: Buffer;
  readonly context?: Buffer;
  /** Room for the packet that comes out; 256 bytes more than went in unless given. */
  readonly outputBytes?: number;
  readonly repeat?: number;
}

export interface TestRunResult {
  /** What the program returned, as u32. */
  readonly value: number;
  /** Of one run, if repeated. */
  readonly nanoseconds: number;
  readonly data?: Buffer;
  readonly context?: Buffer;
}

export interface Native {
  objectOpen(path: string): ObjectHandle;
  objectInfo(object: ObjectHandle): {
    readonly programs: readonly { readonly name: string; readonly section: string; readonly type: number }[];
    readonly maps: readonly MapInfo[];
  };
  objectSetVariable(object: ObjectHandle, name: string, value: Uint8Array): boolean;
  objectReuseMap(object: ObjectHandle, name: string, map: MapHandle): void;
  objectSetEntries(object: ObjectHandle, map: string, entries: number): void;
  objectSetAutoload(object: ObjectHandle, program: string, wanted: boolean): void;
  objectSetAttachType(object: ObjectHandle, program: string, type: number): void;
  objectLoad(object: ObjectHandle, statistics?: boolean): void;
  programInfo(object: ObjectHandle, program: string): ProgramInfo;
  objectMap(object: ObjectHandle, name: string): MapHandle;
  objectInstall(object: ObjectHandle, program: string, map: MapHandle, index: number): void;
  objectClose(object: ObjectHandle): void;

  mapInfo(map: MapHandle): MapInfo & { readonly bufferBytes: number };
  mapLookup(map: MapHandle, key: Uint8Array): Buffer | undefined;
  mapUpdate(map: MapHandle, key: Uint8Array, value: Uint8Array, flags?: number): void;
  mapUpdateMany(map: MapHandle, keys: Uint8Array, values: Uint8Array): void;
  mapDelete(map: MapHandle, key: Uint8Array): boolean;
  mapKeys(map: MapHandle): Buffer;
  mapEntries(map: MapHandle): { readonly keys: Buffer; readonly values: Buffer };
  mapSweep(map: MapHandle, offset: number, before: bigint, remove: boolean): Buffer;
  mapColumn(
    map: MapHandle,
    inKey: boolean,
    offset: number,
    bytes: number,
  ): { readonly keys: Buffer; readonly column: Buffer };
  /** Gives free memory, and what is not in use of the executable, back to the kernel. */
  trimMemory(): void;
  mapPin(map: MapHandle, path: string): void;
  mapOpen(path: string, name: string): MapHandle;
  mapFreeze(map: MapHandle): void;
  mapClose(map: MapHandle): void;

  supportsUprobeMulti(): boolean;
  attachUprobe(
    object: ObjectHandle,
    program: string,
    path: string,
    offsets: readonly number[],
    pid: number,
    multi: boolean,
  ): LinkHandle;
  attachProgram(object: ObjectHandle, program: string): LinkHandle;
  linkPin(link: LinkHandle, path: string): void;
  linkOpen(path: string): LinkHandle;
  linkClose(link: LinkHandle): void;
  linksClose(links: readonly LinkHandle[]): void;

  tcAttach(
    object: ObjectHandle,
    program: string,
    ifindex: number,
    direction: Direction,
    handle: number,
    priority: number,
    netns?: string,
  ): void;
  tcDetach(ifindex: number, direction: Direction, handle: number, priority: number, netns?: string): boolean;
  tcQuery(ifindex: number, direction: Direction, handle: number, priority: number, netns?: string): number;

  ringOpen(map: MapHandle, handler: (samples: Buffer[]) => void): RingHandle;
  ringReference(ring: RingHandle, wanted: boolean): void;
  ringDrain(ring: RingHandle): void;
  ringClose(ring: RingHandle): void;

  testRun(object: ObjectHandle, program: string, options?: TestRun): TestRunResult;
  netnsCookie(path?: string): bigint;
}

export const projectRoot = join(import.meta.dirname, "../..");

let loaded: Native | undefined;

export function loadNative(): Native {
  if (loaded) return loaded;
  const path = join(projectRoot, "build/kloak.node");
  try {
    loaded = createRequire(import.meta.url)(path) as Native;
    return loaded;
  } catch (cause) {
    throw new KloakError("no-addon", `the addon ${path} cannot be loaded: run \`npm run setup\``, { cause });
  }
}

export function isNativeError(error: unknown): error is NativeError {
  return error instanceof Error && "errno" in error && "code" in error;
}

/** The number of a network namespace that BPF sees too; `path` as in `/proc/PID/ns/net`, our own without. */
export function netnsCookie(path?: string): bigint {
  return loadNative().netnsCookie(path);
}
