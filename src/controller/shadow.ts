/*
 * From a managed Secret to its shadow: the Secret `<name>-kloak` that workloads get, whose values are placeholders. Pure:
 * what is wanted is computed from what there is, and who calls makes it so.
 */
import { Buffer } from "node:buffer";
import type { Secret } from "../kube/objects.ts";
import { keyOf } from "../kube/objects.ts";
import {
  makePlaceholder,
  PlaceholderError,
  placeholderProblem,
  SecretValue,
  type Taken,
  tokenText,
} from "../placeholder/index.ts";
import { huffmanBits } from "../placeholder/huffman.ts";
import { domain, managedKeysOf, policyInputOf } from "../policy/annotations.ts";
import { policyProblems } from "../policy/policy.ts";
import { PolicyError } from "../policy/policy-error.ts";
import { parseSlots, isPercentEncoded } from "../policy/slots.ts";
import { isManaged, isShadowOf, managedLabel, ownerLabel, shadowNameOf } from "../shadow/marks.ts";

/** Something that a user must know of a Secret; `reason` is an Event's. */
export interface ShadowProblem {
  readonly reason: string;
  readonly message: string;
}

export interface DesiredShadow {
  /** Undefined: there must be none, or the one that is there stays as it is (`conflict`). */
  readonly shadow: Secret | undefined;
  /** Another Secret has the shadow's name: nothing may be written. */
  readonly conflict: boolean;
  readonly problems: readonly ShadowProblem[];
  /** Keys whose placeholder is another than before: workloads that hold the old one keep the old value. */
  readonly changed: readonly string[];
}

/**
 * @param existing whatever Secret has the shadow's name
 * @param taken tokens of all other placeholders
 */
export function desiredShadow(original: Secret, existing: Secret | undefined, taken: Taken): DesiredShadow {
  if (!isManaged(original)) return { shadow: undefined, conflict: false, problems: [], changed: [] };
  const { name, namespace } = original.metadata;
  const shadowName = shadowNameOf(name);
  if (existing !== undefined && !isShadowOf(existing, original)) {
    const message = `Secret ${namespace}/${shadowName} exists and is not Kloak's. Rename or delete it, or rename this Secret.`;
    return { shadow: undefined, conflict: true, problems: [{ reason: "ShadowNameTaken", message }], changed: [] };
  }
  if (shadowName.length > 253) {
    const message = `Its shadow's name would have ${shadowName.length} characters, more than 253. Use a shorter name.`;
    return { shadow: undefined, conflict: true, problems: [{ reason: "NameTooLong", message }], changed: [] };
  }
  const problems: ShadowProblem[] = [...settingProblems(original)];
  const data: Record<string, string> = {};
  const changed: string[] = [];
  const used = new Set<string>();
  const managed = managedKeys(original, problems);
  for (const [key, encoded] of Object.entries(original.data ?? {})) {
    if (!managed(key)) {
      data[key] = encoded;
      continue;
    }
    const before = existing?.data?.[key];
    const placeholder = placeholderOf(original, key, encoded, before, either(taken, used), problems);
    const text = Buffer.from(placeholder ?? "", "latin1").toString("base64");
    data[key] = text;
    if (placeholder !== undefined) used.add(tokenText(placeholder));
    if (before !== undefined && before !== text) changed.push(key);
  }
  return { shadow: shadowObject(original, existing, data), conflict: false, problems, changed };
}

/** What is wrong with the Secret's settings, each as an Event says it. */
function settingProblems(original: Secret): readonly ShadowProblem[] {
  try {
    return policyProblems(policyInputOf(original.metadata)).map(({ error }) => problemOf(error));
  } catch (error) {
    if (error instanceof PolicyError) return [problemOf(error)];
    throw error;
  }
}

function problemOf(error: PolicyError): ShadowProblem {
  const remedy =
    error.code === "hosts-missing"
      ? `name the hosts that it may be sent to, as in annotation ${domain}hosts: api.example.com`
      : error.remedy;
  return { reason: eventReason(error.code), message: `${error.problem}; ${remedy}` };
}

/** `hosts-missing` → `HostsMissing`. */
export function eventReason(code: string): string {
  return code.replace(/(?:^|-)([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function managedKeys(original: Secret, problems: ShadowProblem[]): (key: string) => boolean {
  let keys: readonly string[] | undefined;
  try {
    keys = managedKeysOf(original.metadata);
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    return () => true; // said by settingProblems; the cautious reading is that all are secrets
  }
  const known = Object.keys(original.data ?? {});
  const missing = (keys ?? []).filter((key) => !known.includes(key));
  if (missing.length > 0) {
    const message = `annotation ${domain}keys names ${missing.map((key) => JSON.stringify(key)).join(", ")}, which the Secret does not have; its keys are ${known.join(", ")}`;
    problems.push({ reason: "KeysUnknown", message });
  }
  return (key) => keys === undefined || keys.includes(key);
}

/** The placeholder that is there already if it still fits, so that a rotation of equal shape changes nothing for pods. */
function placeholderOf(
  original: Secret,
  key: string,
  encoded: string,
  before: string | undefined,
  taken: Taken,
  problems: ShadowProblem[],
): string | undefined {
  const value = new SecretValue(Buffer.from(encoded, "base64"));
  const prefix =
    original.metadata.annotations?.[`${domain}prefix`] ?? original.metadata.labels?.[`${domain}prefix`] ?? "";
  const old = before === undefined ? undefined : Buffer.from(before, "base64").toString("latin1");
  const inUrl = mayStandInUrl(original);
  const problem = placeholderProblem(value, prefix, inUrl);
  if (problem === undefined && old !== undefined && fits(old, value, prefix) && !taken.has(tokenText(old))) return old;
  try {
    return makePlaceholder(value, { prefix, inUrl, taken, object: `Secret ${keyOf(original)}, key ${key}` });
  } catch (error) {
    if (!(error instanceof PlaceholderError)) throw error;
    const { problem: why = error.message, remedy = "" } = problem ?? {};
    problems.push({
      reason: eventReason(error.code),
      message: `key ${key}: ${why}; ${remedy}. Until then its shadow is empty: pods do not get the value.`,
    });
    return undefined;
  }
}

function mayStandInUrl({ metadata }: Secret): boolean {
  try {
    return isPercentEncoded(parseSlots(policyInputOf(metadata).in ?? []));
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    return false; // said by settingProblems
  }
}

/** Whether a placeholder has the value's shape, and the wanted prefix. */
export function fits(placeholder: string, value: SecretValue, prefix: string): boolean {
  return (
    placeholder.length === value.length &&
    placeholder.startsWith(`${prefix}kloak:`) &&
    huffmanBits(Buffer.from(placeholder, "latin1")) === huffmanBits(value.reveal())
  );
}

function shadowObject(original: Secret, existing: Secret | undefined, data: Record<string, string>): Secret {
  const { name, namespace, uid } = original.metadata;
  const { metadata } = existing ?? { metadata: undefined };
  return {
    apiVersion: "v1",
    kind: "Secret",
    metadata: {
      ...(metadata?.resourceVersion === undefined
        ? {}
        : { resourceVersion: metadata.resourceVersion, ...(metadata.uid === undefined ? {} : { uid: metadata.uid }) }),
      name: shadowNameOf(name),
      ...(namespace === undefined ? {} : { namespace }),
      labels: { ...metadata?.labels, [managedLabel]: "true", [ownerLabel]: labelValue(name) },
      ...(metadata?.annotations === undefined ? {} : { annotations: metadata.annotations }),
      ownerReferences: [
        { apiVersion: "v1", kind: "Secret", name, uid: uid ?? "", controller: true, blockOwnerDeletion: true },
      ],
    },
    type: original.type ?? "Opaque",
    data,
  };
}

/** A label's value has at most 63 characters; longer names are told by the owner reference. */
function labelValue(name: string): string {
  return name.length <= 63 ? name : name.slice(0, 63).replace(/[^A-Za-z0-9]+$/, "");
}

/** Whether the API server would store anything new. */
export function sameShadow(a: Secret, b: Secret): boolean {
  return JSON.stringify(comparable(a)) === JSON.stringify(comparable(b));
}

function comparable({ metadata, type, data }: Secret) {
  const sorted = (mapping: Readonly<Record<string, string>> | undefined): [string, string][] =>
    Object.entries(mapping ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  const owners = (metadata.ownerReferences ?? []).map(({ uid, controller }) => [uid, controller === true]);
  return [sorted(metadata.labels), owners, type ?? "Opaque", sorted(data)];
}

function either(a: Taken, b: Taken): Taken {
  return { has: (token) => a.has(token) || b.has(token) };
}
