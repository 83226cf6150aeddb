/* What the controller knows of the cluster: copies of Secrets, shadows, pods and namespaces, and what follows from them. */
import { setTimeout as delay } from "node:timers/promises";
import type { KubeClient } from "../kube/client.ts";
import { hasStatus } from "../kube/error.ts";
import { Informer } from "../kube/informer.ts";
import type { ConfigMap, KubeObject, Namespace, Pod, Secret } from "../kube/objects.ts";
import { resources } from "../kube/resource.ts";
import { domain } from "../policy/annotations.ts";
import type { Surroundings } from "../webhook/admission.ts";
import { type BoundPod, boundPod, type UsableSecret, usableSecrets } from "./bindings.ts";
import type { PodSecret, PodState } from "./node-feed.ts";
import { isManaged, isShadow, shadowSuffix } from "../shadow/marks.ts";

export interface ClusterViewOptions {
  readonly client: KubeClient;
  readonly warn: (message: string) => void;
  /** A managed Secret or a shadow. */
  readonly secretChanged: (key: string) => void;
  readonly shadowChanged: (key: string, now: Secret | undefined) => void;
  readonly podEnded: (uid: string) => void;
  /** What this node is to know may have changed. */
  readonly nodeChanged: (node: string) => void;
}

/** Pods that are gone: records about them may still be on their way. */
const goneMax = 5000;
/** A Secret has up to 1.5 MiB, a pod mostly some KiB: what a page takes is there twice while it is read. */
const secretsPage = 25;
const podsPage = 100;
const rootsMs = 60_000;
const lagMs = 2000;

export class ClusterView implements Surroundings {
  readonly #options: ClusterViewOptions;
  readonly managed: Informer<Secret>;
  readonly shadows: Informer<Secret>;
  readonly pods: Informer<Pod, BoundPod>;
  readonly namespaces: Informer<Namespace, KubeObject>;
  readonly #podsByNode = new Map<string, Map<string, BoundPod>>();
  readonly #podsByShadow = new Map<string, Set<BoundPod>>();
  readonly #gone = new Map<string, string>();
  readonly #usable = new Map<string, { readonly versions: string; readonly secrets: readonly UsableSecret[] }>();
  readonly #roots = new Map<string, { readonly text: string | undefined; readonly untilMs: number }>();

  constructor(options: ClusterViewOptions) {
    this.#options = options;
    const { client, warn } = options;
    const keep = <T>(object: T): T => object;
    this.managed = new Informer<Secret>({
      client,
      warn,
      resource: resources.secrets,
      labelSelector: `${domain}enabled=true`,
      pageSize: secretsPage,
      keep: withoutManagedFields,
      changed: (key) => this.#secretChanged(key),
    });
    this.shadows = new Informer<Secret>({
      client,
      warn,
      resource: resources.secrets,
      labelSelector: `${domain}managed=true`,
      pageSize: secretsPage,
      keep: withoutManagedFields,
      changed: (key, now) => {
        options.shadowChanged(key, now);
        this.#secretChanged(key);
      },
    });
    this.pods = new Informer<Pod, BoundPod>({
      client,
      warn,
      resource: resources.pods,
      pageSize: podsPage,
      keep: boundPod,
      changed: (_, now, before) => this.#podChanged(now, before),
    });
    this.namespaces = new Informer<Namespace, KubeObject>({
      client,
      warn,
      resource: resources.namespaces,
      keep: ({ metadata: { name, resourceVersion, labels } }) =>
        keep({ metadata: { name, ...(resourceVersion && { resourceVersion }), ...(labels && { labels }) } }),
      changed: () => undefined,
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.managed, this.shadows, this.pods, this.namespaces].map((informer) => informer.run(signal)));
  }

  get synced(): Promise<unknown> {
    return Promise.all([this.managed.synced, this.shadows.synced, this.pods.synced, this.namespaces.synced]);
  }

  get hasSynced(): boolean {
    return [this.managed, this.shadows, this.pods, this.namespaces].every((informer) => informer.hasSynced);
  }

  /** Pods whose spec names this shadow, `namespace/name-kloak`. */
  podsUsing(shadowKey: string): readonly BoundPod[] {
    return [...(this.#podsByShadow.get(shadowKey) ?? [])];
  }

  hasPod(node: string, uid: string): boolean {
    return this.#podsByNode.get(node)?.has(uid) === true || this.#gone.get(uid) === node;
  }

  async stateOf(node: string): Promise<readonly PodState[]> {
    const pods = [...(this.#podsByNode.get(node)?.values() ?? [])];
    return Promise.all(pods.map(async (pod) => ({ pod, secrets: await this.#secretsOf(pod) })));
  }

  /**
   * Whether these pods of a node are cloaked, by what the API server says now; resolves when our copies know it too, and
   * the shadows that they use.
   */
  async resolve(node: string, uids: readonly string[]): Promise<ReadonlyMap<string, readonly string[]>> {
    const wanted = new Set(uids);
    if (!uids.every((uid) => this.#podsByNode.get(node)?.has(uid) === true)) {
      const query = { fieldSelector: `spec.nodeName=${node}` };
      const { items } = await this.#options.client.list<Pod>(resources.pods, undefined, query);
      for (const uid of wanted) {
        const pod = items.find(({ metadata }) => metadata.uid === uid);
        if (pod === undefined || boundPod(pod) === undefined) wanted.delete(uid);
      }
    }
    await this.#caughtUp(() => [...wanted].every((uid) => this.#podsByNode.get(node)?.has(uid) === true));
    const pods = [...wanted].flatMap((uid) => this.#podsByNode.get(node)?.get(uid) ?? []);
    for (const pod of pods) await this.#shadowsOf(pod);
    const state = await Promise.all(pods.map(async (pod) => [pod, await this.#secretsOf(pod)] as const));
    return new Map(
      state.map(([{ metadata }, secrets]) => [metadata.uid ?? "", secrets.map(({ secret }) => secret.name)]),
    );
  }

  /** A container that starts has been given its shadows; our copy may be a moment behind. */
  async #shadowsOf({ metadata: { namespace = "" }, shadows }: BoundPod): Promise<void> {
    for (const name of shadows.keys()) {
      const key = `${namespace}/${name}`;
      if (this.shadows.get(key) !== undefined) continue;
      const there = await this.#options.client.get<Secret>(resources.secrets, namespace, name).catch(absent);
      if (there !== undefined && isShadow(there)) await this.#caughtUp(() => this.shadows.get(key) !== undefined);
    }
  }

  /** Watches lag by milliseconds; one that lags for longer must not hold a container for ever. */
  async #caughtUp(condition: () => boolean): Promise<void> {
    const deadline = performance.now() + lagMs;
    while (!condition() && performance.now() < deadline) await delay(10);
  }

  async #secretsOf({ metadata: { namespace = "" }, shadows }: BoundPod): Promise<readonly PodSecret[]> {
    const found: PodSecret[] = [];
    for (const [name, keys] of shadows) {
      for (const secret of this.#usableIn(`${namespace}/${name}`)) {
        const key = secret.name.slice(secret.name.lastIndexOf("/") + 1);
        if (keys !== undefined && !keys.has(key)) continue;
        const roots = secret.ca === undefined ? undefined : await this.#rootsIn(namespace, secret.ca);
        found.push({ secret, roots });
      }
    }
    return found;
  }

  #usableIn(shadowKey: string): readonly UsableSecret[] {
    const original = this.managed.get(shadowKey.slice(0, -shadowSuffix.length));
    const shadow = this.shadows.get(shadowKey);
    if (original === undefined || shadow === undefined) return [];
    const versions = `${original.metadata.resourceVersion} ${shadow.metadata.resourceVersion}`;
    const known = this.#usable.get(shadowKey);
    if (known?.versions === versions) return known.secrets;
    const secrets = usableSecrets(original, shadow);
    this.#usable.set(shadowKey, { versions, secrets });
    return secrets;
  }

  /** All PEM that the ConfigMap has; without it nothing is attested but by the system's roots. */
  async #rootsIn(namespace: string, name: string): Promise<string | undefined> {
    const key = `${namespace}/${name}`;
    const known = this.#roots.get(key);
    if (known !== undefined && known.untilMs > Date.now()) return known.text;
    let text: string | undefined;
    try {
      const map = await this.#options.client.get<ConfigMap>(resources.configMaps, namespace, name);
      text = Object.values(map.data ?? {})
        .filter((value) => value.includes("-----BEGIN CERTIFICATE-----"))
        .join("\n");
    } catch (error) {
      if (!hasStatus(error, 404))
        this.#options.warn(`ConfigMap ${key}: ${error instanceof Error ? error.message : ""}`);
      text = known?.text;
    }
    this.#roots.set(key, { text, untilMs: Date.now() + rootsMs });
    return text;
  }

  #secretChanged(key: string): void {
    this.#options.secretChanged(key);
    const shadowKey = key.endsWith(shadowSuffix) ? key : key + shadowSuffix;
    if (!this.shadows.get(shadowKey)) this.#usable.delete(shadowKey);
    for (const name of new Set([shadowKey, key + shadowSuffix])) {
      for (const pod of this.#podsByShadow.get(name) ?? []) this.#options.nodeChanged(pod.node);
    }
  }

  #podChanged(now: BoundPod | undefined, before: BoundPod | undefined): void {
    if (before !== undefined) this.#forget(before);
    if (now !== undefined) this.#enter(now);
    else if (before !== undefined) this.#options.podEnded(before.metadata.uid ?? "");
    for (const node of new Set([before?.node, now?.node])) if (node !== undefined) this.#options.nodeChanged(node);
  }

  #enter(pod: BoundPod): void {
    const uid = pod.metadata.uid ?? "";
    const onNode = this.#podsByNode.get(pod.node) ?? new Map<string, BoundPod>();
    this.#podsByNode.set(pod.node, onNode.set(uid, pod));
    for (const shadow of shadowKeys(pod)) {
      const using = this.#podsByShadow.get(shadow) ?? new Set();
      this.#podsByShadow.set(shadow, using.add(pod));
    }
  }

  #forget(pod: BoundPod): void {
    const uid = pod.metadata.uid ?? "";
    const onNode = this.#podsByNode.get(pod.node);
    onNode?.delete(uid);
    if (onNode?.size === 0) this.#podsByNode.delete(pod.node);
    for (const shadow of shadowKeys(pod)) {
      const using = this.#podsByShadow.get(shadow);
      using?.delete(pod);
      if (using?.size === 0) this.#podsByShadow.delete(shadow);
    }
    this.#gone.set(uid, pod.node);
    if (this.#gone.size > goneMax) this.#gone.delete(this.#gone.keys().next().value ?? "");
  }

  /** From the copy if it has it, else from the API server: a namespace may be a moment old. */
  async namespace(name: string): Promise<KubeObject | undefined> {
    const known = this.namespaces.get(name);
    if (known !== undefined) return known;
    return this.#options.client.get<Namespace>(resources.namespaces, undefined, name).catch(absent);
  }

  /** A Secret that the copy does not have may have been made, or put under management, a moment ago. */
  async managedAmong(namespace: string, names: readonly string[]): Promise<ReadonlySet<string>> {
    const found = await Promise.all(
      names.map(async (name) => {
        if (this.managed.get(`${namespace}/${name}`) !== undefined) return name;
        const secret = await this.#options.client.get<Secret>(resources.secrets, namespace, name).catch(absent);
        return secret !== undefined && isManaged(secret) ? name : undefined;
      }),
    );
    return new Set(found.filter((name) => name !== undefined));
  }
}

function shadowKeys({ metadata: { namespace = "" }, shadows }: BoundPod): readonly string[] {
  return [...shadows.keys()].map((name) => `${namespace}/${name}`);
}

/** Who wrote which field is of no use here, and often longer than the rest. */
function withoutManagedFields(secret: Secret): Secret {
  const { managedFields: _, ...metadata } = secret.metadata as Secret["metadata"] & { managedFields?: unknown };
  const annotations = metadata.annotations;
  if (annotations === undefined) return { ...secret, metadata };
  // A copy of the whole object, values included, in the form that `kubectl apply` leaves.
  const { "kubectl.kubernetes.io/last-applied-configuration": __, ...rest } = annotations;
  return { ...secret, metadata: { ...metadata, annotations: rest } };
}

function absent(error: unknown): undefined {
  if (hasStatus(error, 404)) return undefined;
  throw error;
}
