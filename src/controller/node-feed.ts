/*
 * What one node is to know, as lines of JSON. Each stream begins with everything and goes on with what changes: it
 * compares what the node should have with what it was told, so that no change can be told twice or forgotten.
 */
import { Buffer } from "node:buffer";
import type { PolicyInput } from "../policy/policy.ts";
import type { BoundPod, UsableSecret } from "./bindings.ts";

export type FeedLine =
  | {
      readonly type: "secret";
      /** Of this stream. A new value, placeholder or policy is a new number. */
      readonly number: number;
      readonly name: string;
      /** Base64. */
      readonly value: string;
      readonly placeholder: string;
      readonly policy: PolicyInput;
      /** PEM. */
      readonly roots: string | null;
    }
  | { readonly type: "forget"; readonly number: number }
  | {
      readonly type: "pod";
      readonly uid: string;
      readonly namespace: string;
      readonly name: string;
      /** Numbers of secrets. */
      readonly secrets: readonly number[];
    }
  | { readonly type: "gone"; readonly uid: string }
  /** All that there was at the start has been told. */
  | { readonly type: "synced" }
  | { readonly type: "ping" };

/** A secret as a pod uses it, with its extra roots. */
export interface PodSecret {
  readonly secret: UsableSecret;
  readonly roots: string | undefined;
}

export interface PodState {
  readonly pod: BoundPod;
  readonly secrets: readonly PodSecret[];
}

interface ToldSecret {
  readonly number: number;
  readonly told: PodSecret;
}

/** One node's side of the feed. Pure but for its memory. */
export class FeedCursor {
  readonly #secrets = new Map<string, ToldSecret>();
  readonly #pods = new Map<string, string>();
  #last = 0;

  /** The lines that turn what was told into `wanted`: secrets before the pods that use them, and gone after. */
  advance(wanted: readonly PodState[]): readonly FeedLine[] {
    const lines: FeedLine[] = [];
    const used = new Set<string>();
    const retired: number[] = [];
    const pods = new Set<string>();
    for (const { pod, secrets } of wanted) {
      const numbers = secrets.map((secret) => {
        used.add(secret.secret.name);
        return this.#number(secret, lines, retired);
      });
      const { uid = "", namespace = "", name } = pod.metadata;
      pods.add(uid);
      const line = { type: "pod", uid, namespace, name, secrets: numbers } as const;
      const text = JSON.stringify(line);
      if (this.#pods.get(uid) === text) continue;
      this.#pods.set(uid, text);
      lines.push(line);
    }
    for (const uid of this.#pods.keys()) {
      if (pods.has(uid)) continue;
      this.#pods.delete(uid);
      lines.push({ type: "gone", uid });
    }
    for (const [name, { number }] of this.#secrets) {
      if (used.has(name)) continue;
      this.#secrets.delete(name);
      retired.push(number);
    }
    return [...lines, ...retired.map((number) => ({ type: "forget", number }) as const)];
  }

  #number(wanted: PodSecret, lines: FeedLine[], retired: number[]): number {
    const known = this.#secrets.get(wanted.secret.name);
    if (known !== undefined && sameSecret(known.told, wanted)) return known.number;
    if (known !== undefined) retired.push(known.number);
    this.#last += 1;
    const number = this.#last;
    this.#secrets.set(wanted.secret.name, { number, told: wanted });
    const { name, value, placeholder, policy } = wanted.secret;
    const encoded = Buffer.from(value.reveal()).toString("base64");
    lines.push({ type: "secret", number, name, value: encoded, placeholder, policy, roots: wanted.roots ?? null });
    return number;
  }
}

function sameSecret(a: PodSecret, b: PodSecret): boolean {
  return (
    a.secret.placeholder === b.secret.placeholder &&
    a.roots === b.roots &&
    JSON.stringify(a.secret.policy) === JSON.stringify(b.secret.policy) &&
    a.secret.value.equals(b.secret.value)
  );
}
