/* What in a pod would defeat its cloak: ways to the node, from which the secrets could be taken. */
import type { Container, Pod, PodSpec } from "../kube/objects.ts";
import { domain } from "../policy/annotations.ts";
import { containerLists } from "../shadow/uses.ts";

/** Annotation on a pod: what of this is wanted all the same, comma-separated. */
export const allowAnnotation = `${domain}allow`;

export interface Defeat {
  /** As it is written in the annotation that allows it. */
  readonly name: string;
  readonly path: string;
  readonly why: string;
}

/** Capabilities with which a container reaches the node's memory, its BPF maps or its other namespaces (capabilities(7)). */
const capabilities: ReadonlySet<string> = new Set([
  "ALL",
  "SYS_ADMIN",
  "SYS_PTRACE",
  "SYS_MODULE",
  "SYS_RAWIO",
  "BPF",
  "PERFMON",
  "CHECKPOINT_RESTORE",
  "DAC_READ_SEARCH",
  "MAC_ADMIN",
  "MAC_OVERRIDE",
]);

/** Folders of the node that hold secrets, or ways to them; with all that lies above and below. */
const folders = [
  "/proc",
  "/sys",
  "/dev",
  "/run",
  "/var/run",
  "/var/lib/kubelet",
  "/var/lib/containerd",
  "/var/lib/docker",
  "/var/lib/containers",
  "/etc/kubernetes",
];

/** Everything in the pod that would defeat its cloak, and is not allowed by its annotation. */
export function defeats(pod: Pod): readonly Defeat[] {
  const allowed = new Set((pod.metadata.annotations?.[allowAnnotation] ?? "").split(",").map((word) => word.trim()));
  return allDefeats(pod.spec).filter(({ name }) => !allowed.has(name));
}

function allDefeats(spec: PodSpec): readonly Defeat[] {
  const found: Defeat[] = [];
  if (spec.hostNetwork === true) {
    found.push({
      name: "hostNetwork",
      path: "spec.hostNetwork",
      why: "its packets do not pass an interface of its own",
    });
  }
  if (spec.hostPID === true) {
    found.push({ name: "hostPID", path: "spec.hostPID", why: "it sees the processes of the node" });
  }
  for (const [index, { hostPath }] of (spec.volumes ?? []).entries()) {
    const path = hostPath?.path;
    if (path === undefined || !isSensitive(path)) continue;
    found.push({
      name: "hostPath",
      path: `spec.volumes[${index}].hostPath`,
      why: `${JSON.stringify(path)} leads to the node's secrets`,
    });
  }
  for (const list of containerLists) {
    for (const [index, container] of (spec[list] ?? []).entries()) {
      found.push(...containerDefeats(container, `spec.${list}[${index}].securityContext`));
    }
  }
  return found;
}

function containerDefeats({ securityContext = {} }: Container, path: string): readonly Defeat[] {
  const found: Defeat[] = [];
  if (securityContext.privileged === true) {
    found.push({ name: "privileged", path: `${path}.privileged`, why: "it can read the node's memory" });
  }
  for (const capability of securityContext.capabilities?.add ?? []) {
    const name = capability.toUpperCase().replace(/^CAP_/, "");
    if (!capabilities.has(name)) continue;
    found.push({
      name: `capability:${name}`,
      path: `${path}.capabilities.add`,
      why: `${name} leads out of the container`,
    });
  }
  return found;
}

function isSensitive(path: string): boolean {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..")) return true;
  const plain = `/${parts.join("/")}`;
  return plain === "/" || folders.some((folder) => isWithin(plain, folder) || isWithin(folder, plain));
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`);
}

/** For the user whose pod is refused. */
export function refusalOf(defeats: readonly Defeat[]): string {
  const lines = defeats.map(({ path, why }) => `${path}: ${why}`);
  const names = [...new Set(defeats.map(({ name }) => name))].join(",");
  return (
    `Kloak cannot keep secrets from this pod. ${lines.join("; ")}. Remove it, or leave the pod uncloaked with label ` +
    `${domain}enabled: "false", or accept the risk with annotation ${allowAnnotation}: "${names}"`
  );
}
