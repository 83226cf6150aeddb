import { join } from "node:path";
import { loadNative, projectRoot } from "../dataplane/native.ts";

/** What the addon offers to this folder (native/run.c). */
interface RunAddon {
  netnsSocket(path: string, kind: number, address: string, port: number): number;
  lockDirectory(path: string): number;
  hideMemory(): void;
  exitNow(status: number): never;
}

const kinds = { udp: 0, listen: 1, connect: 2 } as const;

function load(): RunAddon {
  return loadNative() as unknown as RunAddon;
}

/** The path of something that the build made. */
export function buildFile(name: string): string {
  return join(projectRoot, "build", name);
}

/**
 * A descriptor of a non-blocking socket in the network namespace at `netns` (`/proc/PID/ns/net`): bound, listening or
 * connected. Throws with the errno's name as `code`.
 */
export function netnsSocket(netns: string, kind: keyof typeof kinds, address: string, port: number): number {
  return load().netnsSocket(netns, kinds[kind], address, port);
}

/**
 * A descriptor that holds an exclusive lock on the directory `path` until it is closed; undefined while another holds it,
 * or if it has just been taken away.
 */
export function lockDirectory(path: string): number | undefined {
  try {
    return load().lockDirectory(path);
  } catch (error) {
    if (["EAGAIN", "EWOULDBLOCK", "ENOENT"].includes(errorCode(error) ?? "")) return undefined;
    throw error;
  }
}

/** No core dump, and no other process without CAP_SYS_PTRACE, shows this process's memory. */
export function hideMemory(): void {
  load().hideMemory();
}

/** Ends this process at once. Node would wait for getaddrinfo(3), which may take as long as resolvers are silent. */
export function exitNow(status: number): never {
  return load().exitNow(status);
}

/** The `code` of a system error, or undefined. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
