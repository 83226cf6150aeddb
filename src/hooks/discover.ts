import { buildId, isElf, readImage } from "./elf/image.ts";
import { ElfError, FileSource } from "./elf/source.ts";
import type { Source } from "./elf/source.ts";
import { findEvidence, findOther } from "./evidence.ts";
import type { Evidence } from "./evidence.ts";
import { recogniseGo } from "./go/recognise.ts";
import { recogniseGnutls } from "./gnutls/recognise.ts";
import { identityKey, identityOf, isOverlay } from "./identity.ts";
import type { FileIdentity } from "./identity.ts";
import { recogniseJava } from "./java/recognise.ts";
import { recogniseOpenssl } from "./openssl.ts";
import type { StackPlan, StackRefusal } from "./plan.ts";

/** What is known of a file's TLS code. */
export interface Findings {
  readonly stacks: readonly StackPlan[];
  readonly refusals: readonly StackRefusal[];
  /** known: every sign of TLS code is heard by hooks (of this file or of a libcrypto that it loads). */
  readonly tls: "known" | "none" | "unknown";
  readonly evidence: readonly Evidence[];
}

export interface Discovery extends Findings {
  readonly path: string;
  readonly identity: FileIdentity;
  /** False: there was no time to look at it, and nothing is known of it. */
  readonly examined: boolean;
}

const nothing: Findings = { stacks: [], refusals: [], tls: "none", evidence: [] };

const unexamined: Findings = {
  ...nothing,
  tls: "unknown",
  evidence: [{ stack: "unknown", sign: "its workload brings more new files than there is time to examine" }],
};

/** Pure: what hooks the bytes of `source` call for. A file that is not ELF has none. */
export function examine(source: Source): Findings & { readonly buildId: string | undefined } {
  let id: string | undefined;
  try {
    if (!isElf(source)) return { ...nothing, buildId: undefined };
    const image = readImage(source);
    id = buildId(image);
    const found = [recogniseOpenssl(image), recogniseGo(image), recogniseGnutls(image), recogniseJava(image)].filter(
      (one) => one !== undefined,
    );
    const stacks = found.filter((one): one is StackPlan => "hooks" in one);
    const refusals = found.filter((one): one is StackRefusal => !("hooks" in one));
    const refused = refusals.map(({ stack, reason }) => ({ stack, sign: reason }));
    if (stacks.length > 0) {
      // A refused stack has its own label in the file: it is told as refused, not as another.
      const evidence = [...refused, ...findOther(image, stacks)];
      return { stacks, refusals, tls: evidence.length === 0 ? "known" : "unknown", evidence, buildId: id };
    }
    const { verdict, evidence } = findEvidence(image);
    if (refusals.length > 0) {
      return { ...nothing, refusals, tls: "unknown", evidence: [...refused, ...evidence], buildId: id };
    }
    return { ...nothing, tls: verdict === "elsewhere" ? "known" : verdict, evidence, buildId: id };
  } catch (error) {
    // The kernel may run what we cannot read: say so instead of passing over it.
    if (!(error instanceof ElfError) || error.code === "elf-unreadable") throw error;
    return { ...nothing, tls: "unknown", evidence: [{ stack: "unknown", sign: error.message }], buildId: id };
  }
}

/** What `Discoverer` needs to open: a path, and the name under which people know the file. */
export interface FileReference {
  readonly path: string;
  readonly name?: string;
}

/**
 * Examines files, each content once. Holds at most `limit` findings, those used last.
 */
export class Discoverer {
  readonly #known = new Map<string, Findings & { readonly buildId: string | undefined }>();
  readonly #limit: number;

  constructor(limit = 1024) {
    this.#limit = limit;
  }

  /**
   * @param mayExamine whether a content that is not known yet is examined now
   * @throws ElfError (`elf-unreadable`, or `elf-unsupported` for what is no regular file)
   */
  discover(file: string | FileReference, mayExamine: () => boolean = () => true): Discovery {
    const { path, name = path } = typeof file === "string" ? { path: file } : file;
    using source = new FileSource(path, { name });
    const key = identityKey(source.stat);
    const known = this.#known.get(key);
    const identity = (id?: string): FileIdentity => identityOf(source.stat, isOverlay(source.descriptor), id);
    if (known === undefined && !mayExamine())
      return { path: name, identity: identity(), examined: false, ...unexamined };
    const findings = known ?? examine(source);
    this.#known.delete(key);
    this.#known.set(key, findings);
    const oldest = this.#known.keys().next();
    if (this.#known.size > this.#limit && oldest.done !== true) this.#known.delete(oldest.value);
    const { buildId: id, ...rest } = findings;
    return { path: name, identity: identity(id), examined: true, ...rest };
  }
}

/** @throws ElfError (`elf-unreadable`, or `elf-unsupported` for what is no regular file) */
export function discover(file: string | FileReference): Discovery {
  return new Discoverer(1).discover(file);
}
