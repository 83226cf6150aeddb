/* AdmissionReview (admission.k8s.io/v1): what the API server asks, and what it is answered. */
import { Buffer } from "node:buffer";
import type { KubeObject, Pod } from "../kube/objects.ts";
import { enabledBy } from "../policy/annotations.ts";
import { cloakedAnnotation } from "../shadow/marks.ts";
import { secretUses } from "../shadow/uses.ts";
import { defeats, refusalOf } from "./defeats.ts";
import type { Operation } from "../kube/json-patch.ts";
import { cloakPod, placePod } from "./pod.ts";
import { secretVerdict } from "./secret.ts";

export interface AdmissionRequest {
  readonly uid: string;
  readonly kind: { readonly kind: string };
  readonly subResource?: string;
  readonly namespace?: string;
  readonly operation: "CREATE" | "UPDATE" | "DELETE" | "CONNECT";
  readonly object: KubeObject | null;
}

export interface AdmissionResponse {
  readonly uid: string;
  readonly allowed: boolean;
  readonly status?: { readonly code: number; readonly reason: string; readonly message: string };
  readonly patchType?: "JSONPatch";
  readonly patch?: string;
  readonly warnings?: readonly string[];
}

/** What a decision about a pod needs to know of the cluster. */
export interface Surroundings {
  /** Labels of the namespace, as they are now. */
  namespace(name: string): Promise<KubeObject | undefined>;
  /** Those of these Secrets, in this namespace, that are managed now. */
  managedAmong(namespace: string, names: readonly string[]): Promise<ReadonlySet<string>>;
}

/** @throws TypeError if it is no AdmissionReview */
export function readReview(data: unknown): AdmissionRequest {
  const request = (data as { request?: AdmissionRequest } | null)?.request;
  if (typeof request?.uid !== "string" || typeof request.kind?.kind !== "string") {
    throw new TypeError("the body is no AdmissionReview of admission.k8s.io/v1");
  }
  return request;
}

export function writeReview(response: AdmissionResponse): unknown {
  return { apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview", response };
}

/**
 * Cloaks a pod, or says why it cannot be.
 * @param onlyReadyNodes whether nodes are labelled by whether their agent is ready
 */
export async function admitPod(
  request: AdmissionRequest,
  around: Surroundings,
  onlyReadyNodes = false,
): Promise<AdmissionResponse> {
  const { uid, namespace = "" } = request;
  const pod = podOf(request);
  if (pod === undefined) return { uid, allowed: true };
  if (!(await isCloaked(pod, namespace, request, around))) return { uid, allowed: true };
  const found = defeats(pod);
  if (found.length > 0) return refuse(uid, refusalOf(found));
  const names = [...new Set(secretUses(pod.spec).map(({ secret }) => secret))];
  const managed = await around.managedAmong(namespace, names);
  const isNew = request.subResource !== "ephemeralcontainers";
  const operations = [
    ...cloakPod(pod, (name) => managed.has(name), isNew),
    ...(onlyReadyNodes && isNew ? placePod(pod) : []),
  ];
  return operations.length === 0 ? { uid, allowed: true } : { uid, allowed: true, ...encoded(operations) };
}

function podOf({ object, kind, operation }: AdmissionRequest): Pod | undefined {
  if (kind.kind !== "Pod" || object === null || (operation !== "CREATE" && operation !== "UPDATE")) return undefined;
  return object as Pod;
}

/** The pod's own label wins over its namespace's. A pod that was cloaked stays so for its ephemeral containers. */
async function isCloaked(
  pod: Pod,
  namespace: string,
  { subResource, operation }: AdmissionRequest,
  around: Surroundings,
): Promise<boolean> {
  if (operation === "UPDATE") {
    return subResource === "ephemeralcontainers" && pod.metadata.annotations?.[cloakedAnnotation] === "true";
  }
  const own = enabledBy(pod.metadata);
  if (own !== undefined) return own;
  const parent = await around.namespace(namespace);
  return parent !== undefined && enabledBy(parent.metadata) === true;
}

/** Who has made many mistakes reads about the first ones. */
const longestRefusal = 4000;

/** Validates the settings of a Secret. */
export function admitSecret({ uid, object, kind }: AdmissionRequest): AdmissionResponse {
  if (kind.kind !== "Secret" || object === null) return { uid, allowed: true };
  const { errors, warnings } = secretVerdict(object);
  if (errors.length > 0) return refuse(uid, errors.join("; ").slice(0, longestRefusal));
  // The API server cuts warnings of more than 256 characters, and all of more than 4096 together.
  const shown = warnings.slice(0, 8).map((text) => (text.length > 256 ? `${text.slice(0, 253)}...` : text));
  return shown.length === 0 ? { uid, allowed: true } : { uid, allowed: true, warnings: shown };
}

function refuse(uid: string, message: string): AdmissionResponse {
  return { uid, allowed: false, status: { code: 403, reason: "Forbidden", message } };
}

function encoded(operations: readonly Operation[]): Pick<AdmissionResponse, "patch" | "patchType"> {
  return { patchType: "JSONPatch", patch: Buffer.from(JSON.stringify(operations)).toString("base64") };
}
