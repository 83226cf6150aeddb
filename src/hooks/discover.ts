import { recogniseAead } from "./aead/recognise.ts";
import { buildId, isElf, readImage } from "./elf/image.ts";
import type { ElfImage } from "./elf/image.ts";
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
import { recogniseRing } from "./ring/recognise.ts";

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

const moved: Evidence = { stack: "unknown", sign: "it was written to while it was read" };
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
    return { ...examineImage(image), buildId: id };
  } catch (error) {
    // The kernel may run what we cannot read: say so instead of passing over it.
    if (!(error instanceof ElfError) || error.code === "elf-unreadable") throw error;
    return { ...nothing, tls: "unknown", evidence: [{ stack: "unknown", sign: error.message }], buildId: id };
  }
}

function examineImage(image: ElfImage): Findings {
  const found = [recogniseOpenssl(image), recogniseGo(image), recogniseGnutls(image), recogniseJava(image)].filter(
    (one) => one !== undefined,
  );
  const before = judge(image, found);
  if (before.tls !== "unknown") return before;
  // What follows reads all of the code: only where there is TLS code that is not heard yet.
  // ring's assembly is in other libraries too, to which it does not say all: only under rustls, and only without them.
  const isRustls = before.evidence.some(({ stack }) => stack === "rustls");
  const more = recogniseAead(image) ?? (isRustls ? recogniseRing(image) : undefined);
  return more === undefined ? before : judge(image, [...found, more]);
}

/** What these stacks leave unheard. */
function judge(image: ElfImage, found: readonly (StackPlan | StackRefusal)[]): Findings {
  const stacks = found.filter((one): one is StackPlan => "hooks" in one);
  const refusals = found.filter((one): one is StackRefusal => !("hooks" in one));
  const refused = refusals.map(({ stack, reason }) => ({ stack, sign: reason }));
  if (stacks.length > 0) {
    // A refused stack has its own label in the file: it is told as refused, not as another.
    const evidence = [...refused, ...findOther(image, stacks)];
    return { stacks, refusals, tls: evidence.length === 0 ? "known" : "unknown", evidence };
  }
  const { verdict, evidence } = findEvidence(image);
  if (refusals.length > 0) return { ...nothing, refusals, tls: "unknown", evidence: [...refused, ...evidence] };
  return { ...nothing, tls: verdict === "elsewhere" ? "known" : verdict, evidence };
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
    if (known === undefined && source.changed) {
      const changed = { ...nothing, tls: "unknown", evidence: [moved] } as const;
      return { path: name, identity: identity(findings.buildId), examined: true, ...changed };
    }
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
