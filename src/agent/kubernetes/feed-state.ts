/* What the controller has told of this node so far. Pure: lines in, what is wanted out. */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { FeedLine } from "../../controller/node-feed.ts";
import { SecretValue } from "../../placeholder/index.ts";
import type { PolicyInput } from "../../policy/policy.ts";

export interface FeedSecret {
  /** The same as long as name and placeholder are: a value of equal shape that is rotated keeps it. */
  readonly id: string;
  /** `namespace/name/key`. */
  readonly name: string;
  readonly value: SecretValue;
  readonly placeholder: string;
  readonly policy: PolicyInput;
  readonly roots: readonly string[];
}

export interface FeedPod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly secrets: readonly FeedSecret[];
}

const rootsMax = 256;

export class FeedState {
  readonly #secrets = new Map<number, FeedSecret>();
  readonly #pods = new Map<string, Extract<FeedLine, { type: "pod" }>>();
  /** Roots by the text that they were cut from: one for all secrets that name the same. */
  readonly #roots = new Map<string, readonly string[]>();
  #told: readonly FeedPod[] | undefined;
  /** All that there was when the stream began has been told. */
  synced = false;

  /** Whether anything changed. @throws TypeError for a line that makes no sense */
  take(line: FeedLine): boolean {
    if (line.type !== "ping") this.#told = undefined;
    switch (line.type) {
      case "secret":
        this.#secrets.set(line.number, secretOf(line, this.#rootsOf(line.roots)));
        return false; // no pod uses it yet
      case "forget":
        this.#secrets.delete(line.number);
        return false;
      case "pod":
        for (const number of line.secrets)
          if (!this.#secrets.has(number))
            throw new TypeError(`pod ${line.uid} uses secret ${number}, which was not told`);
        this.#pods.set(line.uid, line);
        return true;
      case "gone":
        return this.#pods.delete(line.uid);
      case "synced":
        this.synced = true;
        return true;
      case "ping":
        return false;
      default:
        throw new TypeError("a line of an unknown type");
    }
  }

  /** The same array as long as nothing was told. */
  pods(): readonly FeedPod[] {
    this.#told ??= [...this.#pods.values()].map(({ uid, namespace, name, secrets }) => ({
      uid,
      namespace,
      name,
      secrets: secrets.flatMap((number) => this.#secrets.get(number) ?? []),
    }));
    return this.#told;
  }

  #rootsOf(text: string | null): readonly string[] {
    if (text === null) return [];
    const digest = createHash("sha256").update(text).digest("hex");
    const known = this.#roots.get(digest);
    if (known !== undefined) return known;
    const roots = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
    if (this.#roots.size >= rootsMax) this.#roots.clear();
    this.#roots.set(digest, roots);
    return roots;
  }
}

function secretOf(
  { name, value, placeholder, policy }: Extract<FeedLine, { type: "secret" }>,
  roots: readonly string[],
): FeedSecret {
  const digest = createHash("sha256").update(placeholder).digest("hex").slice(0, 12);
  return {
    id: `${name}#${digest}`,
    name,
    value: new SecretValue(Buffer.from(value, "base64")),
    placeholder,
    policy,
    roots,
  };
}
