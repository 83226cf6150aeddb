/* Keeps every managed Secret's shadow as `desiredShadow` wants it. Never writes to the original. */
import { createHash } from "node:crypto";
import type { KubeClient } from "../kube/client.ts";
import { hasStatus } from "../kube/error.ts";
import type { EventRecorder } from "../kube/events.ts";
import type { Informer } from "../kube/informer.ts";
import type { Secret } from "../kube/objects.ts";
import { resources } from "../kube/resource.ts";
import { markerOffset, type Taken, tokenText } from "../placeholder/index.ts";
import type { BoundPod } from "./bindings.ts";
import { isManaged, isShadowOf, shadowNameOf, shadowSuffix } from "../shadow/marks.ts";
import { desiredShadow, sameShadow } from "./shadow.ts";

export interface ShadowControllerOptions {
  readonly client: KubeClient;
  readonly events: EventRecorder;
  /** Secrets with `getkloak.io/enabled: "true"`. */
  readonly managed: Pick<Informer<Secret>, "get">;
  /** Secrets with `getkloak.io/managed: "true"`. */
  readonly shadows: Pick<Informer<Secret>, "get" | "values">;
  /** Pods that run with this shadow, to be named when a value's shape changes. */
  readonly podsUsing: (shadowKey: string) => readonly BoundPod[];
  /** These pods run with placeholders that the shadow has no more. */
  readonly outdated: (shadowKey: string, pods: readonly BoundPod[]) => void;
}

export class ShadowController {
  readonly #options: ShadowControllerOptions;
  readonly #tokens = new TokenIndex();
  /** What was said of each Secret last, so that an unchanged fault is not said at each look. */
  readonly #said = new Map<string, string>();

  constructor(options: ShadowControllerOptions) {
    this.#options = options;
  }

  /** To be told of each change of a shadow: whose placeholders are taken. */
  shadowChanged(key: string, now: Secret | undefined): void {
    this.#tokens.set(key, now === undefined ? [] : placeholdersOf(now).map(tokenText));
  }

  /** The original that a Secret's change concerns: itself, or what it would be the shadow of. */
  static originalKeys(key: string): readonly string[] {
    return key.endsWith(shadowSuffix) ? [key, key.slice(0, -shadowSuffix.length)] : [key];
  }

  /** Work for the queue. @param key of the original, `namespace/name` */
  async reconcile(key: string): Promise<void> {
    const original = this.#options.managed.get(key);
    const shadowKey = shadowNameOf(key);
    const existing = this.#options.shadows.get(shadowKey);
    if (original === undefined || !isManaged(original) || original.metadata.deletionTimestamp !== undefined) {
      this.#said.delete(key);
      if (existing !== undefined) await this.#retire(key, existing);
      return;
    }
    const desired = desiredShadow(original, existing, this.#tokens.of(shadowKey));
    await this.#say(key, original, desired.problems);
    if (desired.shadow === undefined) return;
    if (existing === undefined) await this.#create(original, desired.shadow);
    else if (!sameShadow(existing, desired.shadow)) await this.#update(desired.shadow);
    if (desired.changed.length > 0) await this.#sayChanged(original, shadowKey, desired.changed);
  }

  async #create(original: Secret, shadow: Secret): Promise<void> {
    try {
      const created = await this.#options.client.create<Secret>(resources.secrets, shadow.metadata.namespace, shadow);
      this.shadowChanged(shadowNameOf(keyOfOriginal(original)), created);
      await this.#event(original, "Normal", "ShadowCreated", `Secret ${shadow.metadata.name} holds its placeholders`);
    } catch (error) {
      if (!hasStatus(error, 409)) throw await this.#refused(original, error);
      const there = await this.#options.client.get<Secret>(
        resources.secrets,
        shadow.metadata.namespace,
        shadow.metadata.name,
      );
      if (isShadowOf(there, original)) return; // ours, and on its way through the watch
      const { problems } = desiredShadow(original, there, new Set());
      await this.#say(keyOfOriginal(original), original, problems);
    }
  }

  async #update(shadow: Secret): Promise<void> {
    try {
      await this.#options.client.replace(resources.secrets, shadow);
    } catch (error) {
      if (hasStatus(error, 404) || hasStatus(error, 409)) return; // what we read is old: the watch brings the new one
      throw error;
    }
  }

  /** Says why the API server does not take the shadow; returns the error, to be tried again. */
  async #refused(original: Secret, error: unknown): Promise<unknown> {
    if (hasStatus(error, 422) || hasStatus(error, 403)) {
      await this.#event(original, "Warning", "ShadowRefused", `its shadow was refused: ${error.message}`);
    }
    return error;
  }

  /** The original is managed no more, or gone: then the garbage collector is at it too. */
  async #retire(key: string, shadow: Secret): Promise<void> {
    const [namespace, name = ""] = key.split("/");
    let original: Secret | undefined;
    try {
      original = await this.#options.client.get<Secret>(resources.secrets, namespace, name);
    } catch (error) {
      if (!hasStatus(error, 404)) throw error;
    }
    if (original !== undefined && isManaged(original) && original.metadata.deletionTimestamp === undefined) return;
    const owner = shadow.metadata.ownerReferences?.find(({ kind }) => kind === "Secret");
    if (owner?.name !== name) return; // marked by a stranger: not ours to delete
    try {
      await this.#options.client.delete(resources.secrets, shadow);
    } catch (error) {
      if (!hasStatus(error, 404) && !hasStatus(error, 409)) throw error;
    }
  }

  async #say(key: string, original: Secret, problems: readonly { reason: string; message: string }[]): Promise<void> {
    const digest = createHash("sha256").update(JSON.stringify(problems)).digest("hex");
    if (this.#said.get(key) === digest) return;
    this.#said.set(key, digest);
    for (const { reason, message } of problems) await this.#event(original, "Warning", reason, message);
  }

  async #sayChanged(original: Secret, shadowKey: string, keys: readonly string[]): Promise<void> {
    const using = this.#options.podsUsing(shadowKey);
    if (using.length === 0) return;
    this.#options.outdated(shadowKey, using);
    const pods = using.map(({ metadata }) => metadata.name);
    const shown = pods.slice(0, 10).join(", ") + (pods.length > 10 ? ` and ${pods.length - 10} more` : "");
    await this.#event(
      original,
      "Warning",
      "PlaceholderChanged",
      `key ${keys.join(", ")}: the new value has another shape, so its placeholder is another. Pods that run keep the old placeholder with the old value until they restart, a day at the longest: ${shown}`,
    );
  }

  #event(original: Secret, type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    return this.#options.events.record(resources.secrets, original, type, reason, message);
  }
}

/** Tokens of all placeholders, without those of one shadow. */
class TokenIndex {
  readonly #byShadow = new Map<string, readonly string[]>();
  readonly #owners = new Map<string, Set<string>>();

  set(shadow: string, tokens: readonly string[]): void {
    for (const token of this.#byShadow.get(shadow) ?? []) {
      const owners = this.#owners.get(token);
      owners?.delete(shadow);
      if (owners?.size === 0) this.#owners.delete(token);
    }
    if (tokens.length === 0) this.#byShadow.delete(shadow);
    else this.#byShadow.set(shadow, tokens);
    for (const token of tokens) {
      const owners = this.#owners.get(token);
      if (owners === undefined) this.#owners.set(token, new Set([shadow]));
      else owners.add(shadow);
    }
  }

  /** Those of others. Of a pair that is taken twice, the shadow whose name comes first keeps it. */
  of(shadow: string): Taken {
    return {
      has: (token) => {
        const owners = this.#owners.get(token);
        if (owners === undefined) return false;
        return !owners.has(shadow) || [...owners].some((other) => other < shadow);
      },
    };
  }
}

function placeholdersOf(shadow: Secret): readonly string[] {
  return Object.values(shadow.data ?? {})
    .map((encoded) => Buffer.from(encoded, "base64").toString("latin1"))
    .filter((text) => text.length <= 4096 && markerOffset(text) !== -1);
}

function keyOfOriginal({ metadata: { namespace, name } }: Secret): string {
  return `${namespace}/${name}`;
}
