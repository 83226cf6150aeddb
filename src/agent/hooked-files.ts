/* Files whose TLS code is hooked: each once, for all processes that map it now or later. */
import { createHash } from "node:crypto";
import type { Dataplane, Link } from "../dataplane/index.ts";
import type { LinkPlace } from "../dataplane/pins.ts";
import { KloakError } from "../errors.ts";
import { Examination } from "./examination.ts";
import { Discoverer, type Discovery, type FileReference, FileSource, type Hook } from "../hooks/index.ts";

/** What hooking needs of a data plane. */
export interface Prober {
  attachUprobe: Dataplane["attachUprobe"];
  hasProgram(program: string): boolean;
  /** Places where an earlier agent's probes are. */
  kept(): readonly LinkPlace[];
  /** Is told of each file that is hooked now. */
  hooked(path: string): void;
}

export interface HookedFile {
  /** Of the file's content. */
  readonly key: string;
  readonly name: string;
  /** `hooked`: all TLS code in it is heard. `unknown`: some is not. `none`: there is none. */
  readonly tls: "hooked" | "unknown" | "none";
  /** Any of its code is hooked. */
  readonly heard: boolean;
  /** Its hooks are new: who mapped it before was not heard until now. */
  readonly fresh: boolean;
  /** Of `unknown`: which stack, and why it is not hooked. */
  readonly stack: string | null;
  readonly why: string;
  readonly buildId: string | undefined;
}

interface Entry {
  readonly file: HookedFile;
  readonly links: readonly Link[];
  readonly keep: LinkPlace;
  /** On whose account it is hooked; undefined when they are gone. */
  readonly share: number | undefined;
}

export interface HookLimits {
  /** Files with hooks that one workload may cause: it can write any number of libcryptos. */
  readonly perShare: number;
  /** Files with hooks; those that no workload accounts for make room. */
  readonly hooked: number;
  /** Files with TLS code that is not hooked; what is forgotten is looked at again. */
  readonly unhooked: number;
}

export const hookLimits: HookLimits = { perShare: 128, hooked: 1024, unhooked: 4096 };

/** What an instruction may have, and more than what the kernel keeps of the one that a breakpoint replaces. */
const codeBytes = 16;

export class HookedFiles {
  readonly #prober: Prober;
  readonly #limits: HookLimits;
  readonly #examination: Examination;
  readonly #discoverer = new Discoverer();
  /** By place: one inode has one content. */
  readonly #hooked = new Map<string, Entry>();
  readonly #unhooked = new Map<string, Entry>();

  constructor(prober: Prober, limits = hookLimits, examination = new Examination()) {
    this.#prober = prober;
    this.#limits = limits;
    this.#examination = examination;
  }

  /** Files with hooks in them. */
  get hookedCount(): number {
    return this.#hooked.size;
  }

  /** Files with TLS code that is not hooked, as far as they are remembered. */
  get unhookedCount(): number {
    return this.#unhooked.size;
  }

  /** Whether hooks that an earlier agent has left are in use. */
  has({ place, sign }: LinkPlace): boolean {
    return this.#hooked.get(place)?.keep.sign === sign;
  }

  /**
   * Hooks the file if it is new and has TLS code that is known. Of a file that has been written to since, the hooks of
   * the old content go first: on the new one they would stand anywhere.
   * @param share on whose account: asked for only if there is something to examine or to hook
   * @throws ElfError if it cannot be read
   */
  hook(reference: FileReference, share: () => number = () => 0): HookedFile {
    const discovery = this.#examination.charge(share, () =>
      this.#discoverer.discover(reference, () => this.#examination.mayExamine(share())),
    );
    const key = discovery.identity.inodeKey;
    let place = this.#placeOf(key);
    const before = this.#hooked.get(place);
    if (before !== undefined && contentOf(before.file.key) === contentOf(key)) return before.file;
    const known = this.#unhooked.get(place);
    if (before === undefined && known?.file.key === key) return known.file;
    this.#unhooked.delete(place);

    const hooks = discovery.stacks.flatMap((plan) => plan.hooks).filter((hook) => this.#wanted(hook));
    const keep = this.#keepOf(place, hooks.length === 0 ? "" : signOf(hooks, reference));
    place = keep.place;
    if (before !== undefined && before.keep.sign === keep.sign) {
      // Another owner or mode, a link more: the code is what it was.
      const file = { ...before.file, key, fresh: false };
      this.#hooked.set(place, { ...before, file });
      return file;
    }
    if (before !== undefined) this.#unhook(place, before);
    const entry = this.#attach(key, discovery, reference, hooks, keep, share);
    if (entry.links.length > 0) this.#hooked.set(place, { ...entry, file: { ...entry.file, fresh: false } });
    // What has no TLS code, which are most files, need not be kept: the discoverer remembers the recent ones.
    else if (entry.file.tls !== "none" && discovery.examined) this.#remember(place, entry);
    return entry.file;
  }

  /** The file at this place has been written to. */
  changed(place: string): void {
    for (const [other, entry] of this.#hooked) if (isSameInode(place, other)) this.#unhook(other, entry);
    this.#unhooked.delete(place);
  }

  /** A workload is gone. Its files stay hooked, others of the same image may come, until there is no more room. */
  release(share: number): void {
    for (const [place, entry] of this.#hooked)
      if (entry.share === share) this.#hooked.set(place, { ...entry, share: undefined });
  }

  /**
   * The file's own place, or that under which it is hooked already: an exec in a container is seen on the overlay and,
   * where the file system below is guarded too, there as well, and a probe belongs to the inode below.
   */
  #placeOf(key: string): string {
    const place = placeOf(key);
    if (this.#hooked.has(place)) return place;
    for (const [other, { file }] of this.#hooked)
      if (isSameInode(place, other) && contentOf(file.key) === contentOf(key)) return other;
    return place;
  }

  /** As an earlier agent kept it, if it did. */
  #keepOf(place: string, sign: string): LinkPlace {
    const kept = this.#prober.kept().filter((each) => each.sign === sign && isSameInode(each.place, place));
    return kept.find((each) => each.place === place) ?? kept[0] ?? { place, sign };
  }

  #unhook(place: string, entry: Entry): void {
    this.#hooked.delete(place);
    for (const link of entry.links) link.close();
  }

  #remember(place: string, entry: Entry): void {
    const oldest = this.#unhooked.keys().next();
    if (this.#unhooked.size >= this.#limits.unhooked && oldest.done !== true) this.#unhooked.delete(oldest.value);
    this.#unhooked.set(place, entry);
  }

  #wanted({ required, program }: Hook): boolean {
    return required || this.#prober.hasProgram(program);
  }

  #attach(
    key: string,
    discovery: Discovery,
    reference: FileReference,
    hooks: readonly Hook[],
    keep: LinkPlace,
    share: () => number,
  ): Entry {
    const { path } = reference;
    const about = { key, name: discovery.path, buildId: discovery.identity.buildId };
    const unheard = discovery.tls === "unknown" ? discovery.evidence[0] : undefined;
    const [stack, why] = [unheard?.stack ?? null, unheard?.sign ?? ""];
    const none = { links: [], keep, share: undefined };
    if (hooks.length === 0) {
      const tls = discovery.tls === "known" ? "hooked" : discovery.tls;
      return { ...none, file: { ...about, tls, heard: false, fresh: false, stack, why } };
    }
    try {
      const account = share();
      this.#makeRoom(account);
      const fresh = !this.#prober.kept().some(({ place, sign }) => place === keep.place && sign === keep.sign);
      this.#prober.hooked(path);
      const links = this.#attachAll(hooks, path, keep);
      if (this.#discoverer.discover(reference).identity.inodeKey !== key) {
        for (const link of links) link.close();
        throw new KloakError("file-changed", "it was written to while it was hooked");
      }
      const tls = discovery.tls === "unknown" ? "unknown" : "hooked";
      return { file: { ...about, tls, heard: true, fresh, stack, why }, links, keep, share: account };
    } catch (error) {
      const reason = `its functions cannot be hooked: ${error instanceof Error ? error.message : String(error)}`;
      const name = discovery.stacks[0]?.stack ?? null;
      return { ...none, file: { ...about, tls: "unknown", heard: false, fresh: false, stack: name, why: reason } };
    }
  }

  /** @throws KloakError `too-many-files` if it is at the cost of others */
  #makeRoom(share: number): void {
    let own = 0;
    let idle: [string, Entry] | undefined;
    for (const [place, entry] of this.#hooked) {
      if (entry.share === share) own += 1;
      if (entry.share === undefined) idle ??= [place, entry];
    }
    if (own >= this.#limits.perShare) {
      throw new KloakError("too-many-files", `${own} files of this workload are hooked, and no more are`);
    }
    if (this.#hooked.size < this.#limits.hooked) return;
    if (idle === undefined)
      throw new KloakError("too-many-files", `${this.#hooked.size} files are hooked, and no more are`);
    this.#unhook(...idle);
  }

  /** All of them, or none. */
  #attachAll(hooks: readonly Hook[], path: string, keep: LinkPlace): Link[] {
    const links: Link[] = [];
    try {
      for (const { program, fileOffset } of hooks)
        links.push(this.#prober.attachUprobe({ program, path, offset: fileOffset, keep }));
      return links;
    } catch (error) {
      for (const link of links) link.close();
      throw error;
    }
  }
}

/** `DEVICE-INODE`, as the gate says it too. */
function placeOf(inodeKey: string): string {
  return inodeKey.split(":").slice(0, 2).join("-");
}

/** All of a key but the device. */
function contentOf(inodeKey: string): string {
  return inodeKey.slice(inodeKey.indexOf(":"));
}

/** Whether two places may be one inode: an overlay says not which device is below it. */
function isSameInode(a: string, b: string): boolean {
  if (a === b) return true;
  const [device = "", inode] = a.split("-");
  const [otherDevice = "", otherInode] = b.split("-");
  return inode === otherInode && (device === "overlay") !== (otherDevice === "overlay");
}

/** Equal as long as the breakpoints stand where they did and replace what they did. */
function signOf(hooks: readonly Hook[], { path, name = path }: FileReference): string {
  using source = new FileSource(path, { name });
  const hash = createHash("sha256");
  for (const { program, fileOffset } of hooks) {
    const length = Math.min(codeBytes, source.size - fileOffset);
    hash.update(`${program} ${fileOffset} `).update(source.read(fileOffset, length));
  }
  return hash.digest("hex").slice(0, 24);
}

export function proberOf(dataplane: Dataplane, hooked: (path: string) => void): Prober {
  return {
    attachUprobe: (target) => dataplane.attachUprobe(target),
    kept: () => dataplane.keptPlaces(),
    hooked,
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
