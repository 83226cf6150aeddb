/*
 * Memory of a process that has started. Loading modules and programs, and compiling thousands of secrets, takes several
 * times what is then kept; the collector does not look for it as long as nothing new is made.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { loadNative } from "../dataplane/native.ts";

/** After the last change: one that follows soon would need the memory again. */
const idleMs = 2000;

/** Collects, and gives back to the kernel what is free, once nothing has been noted for a while. */
export class IdleMemory {
  #timer: NodeJS.Timeout | undefined;

  /** Something was done that has left garbage. */
  note(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(trim, idleMs);
    this.#timer.unref();
  }

  close(): void {
    clearTimeout(this.#timer);
  }
}

function trim(): void {
  // The usual collection keeps the pages that it has emptied for what comes next.
  collector()({ type: "major", execution: "sync", flavor: "last-resort" });
  loadNative().trimMemory();
}

/** What `node --expose-gc` puts into every context, for who was started without. */
function collector(): (options: object) => void {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc") as (options: object) => void;
}
