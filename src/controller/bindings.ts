/* Which secrets a pod may use: those whose shadow its spec names, key by key. Pure. */
import { Buffer } from "node:buffer";
import type { Meta, Pod, Secret } from "../kube/objects.ts";
import { markerOffset, SecretValue } from "../placeholder/index.ts";
import { policyInputOf, setting } from "../policy/annotations.ts";
import { parsePolicy, type PolicyInput } from "../policy/policy.ts";
import { PolicyError } from "../policy/policy-error.ts";
import { cloakedAnnotation, isShadowOf, shadowNameOf, shadowSuffix } from "../shadow/marks.ts";
import { secretUses } from "../shadow/uses.ts";

/** What is kept of a pod: 10,000 of them have to fit. */
export interface BoundPod {
  readonly metadata: Pick<Meta, "name" | "namespace" | "uid" | "resourceVersion">;
  readonly node: string;
  /** Shadows by name, with the keys that the pod asks for; undefined: all. */
  readonly shadows: ReadonlyMap<string, ReadonlySet<string> | undefined>;
}

/** Undefined for a pod that is not cloaked, has no node, or has ended. One that uses no shadow is heard for what it may not use. */
export function boundPod({ metadata, spec, status }: Pod): BoundPod | undefined {
  if (metadata.annotations?.[cloakedAnnotation] !== "true" || spec.nodeName === undefined) return undefined;
  if (status?.phase === "Succeeded" || status?.phase === "Failed") return undefined;
  const shadows = new Map<string, ReadonlySet<string> | undefined>();
  for (const { secret, keys } of secretUses(spec)) {
    if (!secret.endsWith(shadowSuffix)) continue;
    const before = shadows.has(secret) ? shadows.get(secret) : new Set<string>();
    shadows.set(secret, keys === undefined || before === undefined ? undefined : new Set([...before, ...keys]));
  }
  const { name, namespace = "", uid = "", resourceVersion = "" } = metadata;
  return { metadata: { name, namespace, uid, resourceVersion }, node: spec.nodeName, shadows };
}

/** One key of a Secret, as the agent of a node needs it. */
export interface UsableSecret {
  /** `namespace/name/key`. */
  readonly name: string;
  readonly value: SecretValue;
  readonly placeholder: string;
  readonly policy: PolicyInput;
  /** Name of the ConfigMap with extra roots, in the Secret's namespace. */
  readonly ca: string | undefined;
}

/** Everything usable in one Secret; nothing if its settings are wrong, which its Events say. */
export function usableSecrets(original: Secret, shadow: Secret): readonly UsableSecret[] {
  if (!isShadowOf(shadow, original) || shadow.metadata.name !== shadowNameOf(original.metadata.name)) return [];
  const { namespace, name } = original.metadata;
  try {
    const policy = policyInputOf(original.metadata);
    parsePolicy(policy);
    const ca = setting(original.metadata, "ca");
    return Object.entries(shadow.data ?? {}).flatMap(([key, encoded]) => {
      const placeholder = Buffer.from(encoded, "base64").toString("latin1");
      const real = original.data?.[key];
      if (real === undefined || real === encoded || markerOffset(placeholder) === -1) return [];
      const value = new SecretValue(Buffer.from(real, "base64"));
      if (value.length !== placeholder.length) return []; // the shadow is about to follow
      return [{ name: `${namespace}/${name}/${key}`, value, placeholder, policy, ca }];
    });
  } catch (error) {
    if (error instanceof PolicyError) return [];
    throw error;
  }
}
