/* Where a pod names Secrets. Pure. */
import { pointer } from "../kube/json-patch.ts";
import type { Container, KeyToPath, PodSpec, Volume } from "../kube/objects.ts";

export const containerLists = ["initContainers", "containers", "ephemeralContainers"] as const;

/** One place in a pod that names a Secret. */
export interface SecretUse {
  readonly secret: string;
  /** JSON pointer to the name. */
  readonly path: string;
  /** Of the Secret; undefined: all. */
  readonly keys?: readonly string[];
}

/**
 * Every place whose content of a Secret reaches the pod's processes. Not `imagePullSecrets`, nor what CSI drivers and
 * volume plugins are given: the kubelet keeps that to itself.
 */
export function secretUses(spec: PodSpec): readonly SecretUse[] {
  const volumes = (spec.volumes ?? []).flatMap((volume, index) => volumeUses(volume, index));
  const containers = containerLists.flatMap((list) =>
    (spec[list] ?? []).flatMap((container, index) => containerUses(container, list, index)),
  );
  return [...volumes, ...containers];
}

function volumeUses({ secret, projected }: Volume, index: number): readonly SecretUse[] {
  const uses: SecretUse[] = [];
  if (secret?.secretName !== undefined) {
    const path = pointer("spec", "volumes", index, "secret", "secretName");
    uses.push({ secret: secret.secretName, path, ...keysOf(secret.items) });
  }
  for (const [at, source] of (projected?.sources ?? []).entries()) {
    if (source.secret?.name === undefined) continue;
    const path = pointer("spec", "volumes", index, "projected", "sources", at, "secret", "name");
    uses.push({ secret: source.secret.name, path, ...keysOf(source.secret.items) });
  }
  return uses;
}

function keysOf(items: readonly KeyToPath[] | undefined): Pick<SecretUse, "keys"> {
  return items === undefined ? {} : { keys: items.map(({ key }) => key) };
}

function containerUses({ env, envFrom }: Container, list: string, index: number): readonly SecretUse[] {
  const uses: SecretUse[] = [];
  for (const [at, { valueFrom }] of (env ?? []).entries()) {
    const { name, key = "" } = valueFrom?.secretKeyRef ?? {};
    if (name === undefined) continue;
    const path = pointer("spec", list, index, "env", at, "valueFrom", "secretKeyRef", "name");
    uses.push({ secret: name, path, keys: [key] });
  }
  for (const [at, { secretRef }] of (envFrom ?? []).entries()) {
    if (secretRef?.name === undefined) continue;
    uses.push({ secret: secretRef.name, path: pointer("spec", list, index, "envFrom", at, "secretRef", "name") });
  }
  return uses;
}
