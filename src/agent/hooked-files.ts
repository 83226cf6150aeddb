/* Files whose TLS code is hooked: each once, for all processes that map it now or later. */
import type { Dataplane, Link } from "../dataplane/index.ts";
import { KloakError } from "../errors.ts";
import { Discoverer, type Discovery, type FileReference, type Hook } from "../hooks/index.ts";

/** What hooking needs of a data plane. */
export interface Prober {
  attachUprobe: Dataplane["attachUprobe"];
  hasProgram(program: string): boolean;
}

export interface HookedFile {
  /** Of the file's content. */
  readonly key: string;
  readonly name: string;
  /** `hooked`: all TLS code in it is heard. `unknown`: some is not. `none`: there is none. */
  readonly tls: "hooked" | "unknown" | "none";
  /** Any of its code is hooked. */
  readonly heard: boolean;
  /** Of `unknown`: which stack, and why it is not hooked. */
  readonly stack: string | null;
  readonly why: string;
}

interface Entry {
  readonly file: HookedFile;
  readonly links: readonly Link[];
}

export class HookedFiles {
  readonly #prober: Prober;
  readonly #discoverer = new Discoverer();
  readonly #entries = new Map<string, Entry>();

  constructor(prober: Prober) {
    this.#prober = prober;
  }

  /** Files with hooks in them. */
  get hookedCount(): number {
    return [...this.#entries.values()].filter(({ links }) => links.length > 0).length;
  }

  /**
   * Hooks the file if it is new and has TLS code that is known.
   * @throws ElfError if it cannot be read
   */
  hook(reference: FileReference): HookedFile {
    const discovery = this.#discoverer.discover(reference);
    const { device, inode, size, modifiedNs } = discovery.identity;
    const key = [device, inode, size, modifiedNs].join(":");
    const known = this.#entries.get(key);
    if (known !== undefined) return known.file;
    const entry = this.#attach(key, discovery, reference.path);
    // What has no TLS code, which are most files, need not be kept: the discoverer remembers the recent ones.
    if (entry.file.tls !== "none") this.#entries.set(key, entry);
    return entry.file;
  }

  #attach(key: string, discovery: Discovery, path: string): Entry {
    const about = { key, name: discovery.path };
    const unheard = discovery.tls === "unknown" ? discovery.evidence[0] : undefined;
    const [stack, why] = [unheard?.stack ?? null, unheard?.sign ?? ""];
    const hooks = discovery.stacks.flatMap((plan) => plan.hooks);
    if (hooks.length === 0) {
      const tls = discovery.tls === "known" ? "hooked" : discovery.tls;
      return { file: { ...about, tls, heard: false, stack, why }, links: [] };
    }
    try {
      const links = this.#attachAll(hooks, path);
      return {
        file: { ...about, tls: discovery.tls === "unknown" ? "unknown" : "hooked", heard: true, stack, why },
        links,
      };
    } catch (error) {
      const reason = `its functions cannot be hooked: ${error instanceof Error ? error.message : String(error)}`;
      const name = discovery.stacks[0]?.stack ?? null;
      return { file: { ...about, tls: "unknown", heard: false, stack: name, why: reason }, links: [] };
    }
  }

  /** All required ones, or none. */
  #attachAll(hooks: readonly Hook[], path: string): Link[] {
    const links: Link[] = [];
    try {
      for (const { program, fileOffset, required } of hooks) {
        if (!required && !this.#prober.hasProgram(program)) continue;
        links.push(this.#prober.attachUprobe({ program, path, offset: fileOffset }));
      }
      return links;
    } catch (error) {
      for (const link of links) link.close();
      throw error;
    }
  }
}

export function proberOf(dataplane: Dataplane): Prober {
  return {
    attachUprobe: (target) => dataplane.attachUprobe(target),
    hasProgram: (program) => {
      try {
        dataplane.objectOf(program);
        return true;
      } catch (error) {
        if (error instanceof KloakError) return false;
        throw error;
      }
    },
  };
}
