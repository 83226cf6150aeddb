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

export class FeedState {
  readonly #secrets = new Map<number, FeedSecret>();
  readonly #pods = new Map<string, Extract<FeedLine, { type: "pod" }>>();
  /** All that there was when the stream began has been told. */
  synced = false;

  /** Whether anything changed. @throws TypeError for a line that makes no sense */
  take(line: FeedLine): boolean {
    switch (line.type) {
      case "secret":
        this.#secrets.set(line.number, secretOf(line));
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

  pods(): readonly FeedPod[] {
    return [...this.#pods.values()].map(({ uid, namespace, name, secrets }) => ({
      uid,
      namespace,
      name,
      secrets: secrets.flatMap((number) => this.#secrets.get(number) ?? []),
    }));
  }
}

function secretOf({ name, value, placeholder, policy, roots }: Extract<FeedLine, { type: "secret" }>): FeedSecret {
  const digest = createHash("sha256").update(placeholder).digest("hex").slice(0, 12);
  return {
    id: `${name}#${digest}`,
    name,
    value: new SecretValue(Buffer.from(value, "base64")),
    placeholder,
    policy,
    roots: roots === null ? [] : (roots.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? []),
  };
}
