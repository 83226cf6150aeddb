/*
 * What becomes of a cloaked pod at its admission: every place that names a managed Secret names its shadow instead. Pure.
 */
import { type Operation, pointer } from "../kube/json-patch.ts";
import type { Pod } from "../kube/objects.ts";
import { cloakedAnnotation, readyNode, shadowNameOf } from "../shadow/marks.ts";
import { secretUses } from "../shadow/uses.ts";

/**
 * The patch that cloaks a pod.
 * @param isManaged whether the Secret of this name, in the pod's namespace, is managed
 * @param mark whether to set the annotation that says so; ephemeral containers come when it is there
 */
export function cloakPod(pod: Pod, isManaged: (secret: string) => boolean, mark: boolean): readonly Operation[] {
  const operations: Operation[] = secretUses(pod.spec)
    .filter(({ secret }) => isManaged(secret))
    .map(({ secret, path }) => ({ op: "replace", path, value: shadowNameOf(secret) }));
  if (!mark || pod.metadata.annotations?.[cloakedAnnotation] === "true") return operations;
  const annotations = pod.metadata.annotations;
  return [
    ...(annotations === undefined ? [{ op: "add", path: pointer("metadata", "annotations"), value: {} } as const] : []),
    { op: "add", path: pointer("metadata", "annotations", cloakedAnnotation), value: "true" },
    ...operations,
  ];
}

/** The patch that keeps a pod from nodes whose agent is not ready. */
export function placePod({ spec: { nodeSelector } }: Pod): readonly Operation[] {
  if (nodeSelector?.[readyNode.label] === readyNode.value) return [];
  return [
    ...(nodeSelector === undefined ? [{ op: "add", path: pointer("spec", "nodeSelector"), value: {} } as const] : []),
    { op: "add", path: pointer("spec", "nodeSelector", readyNode.label), value: readyNode.value },
  ];
}
