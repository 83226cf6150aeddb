/* By which marks and names managed Secrets, their shadows and cloaked pods are known. */
import type { Secret } from "../kube/objects.ts";
import { domain, enabledBy } from "../policy/annotations.ts";

export const shadowSuffix = "-kloak";
export const managedLabel = `${domain}managed`;
export const ownerLabel = `${domain}owner`;
/** Set on every pod that was cloaked. */
export const cloakedAnnotation = `${domain}enabled`;
/** On nodes whose agent is ready, and asked for by cloaked pods. */
export const readyNode = { label: `${domain}agent`, value: "ready" } as const;

export function shadowNameOf(name: string): string {
  return name + shadowSuffix;
}

export function isManaged(secret: Secret): boolean {
  return enabledBy(secret.metadata) === true && !isShadow(secret);
}

/** By its marks; whose it is, is told by its owner reference alone. */
export function isShadow(secret: Secret): boolean {
  return secret.metadata.labels?.[managedLabel] === "true";
}

/** Whether `shadow` is this Secret's own, and not a stranger's of the same name. */
export function isShadowOf(shadow: Secret, original: Secret): boolean {
  return (
    isShadow(shadow) &&
    (shadow.metadata.ownerReferences ?? []).some(({ kind, uid }) => kind === "Secret" && uid === original.metadata.uid)
  );
}
