import type { PolicyInput } from "./policy.ts";
import { PolicyError, quoted } from "./policy-error.ts";

/** What precedes every label and annotation of Kloak. */
export const domain = "getkloak.io/";

/** Labels and annotations as Kubernetes has them. */
export interface ObjectMeta {
  readonly labels?: Readonly<Record<string, string>> | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}

/** What a user may write on a Secret, without the domain. */
export const secretSettings = [
  "enabled",
  "hosts",
  "ports",
  "port",
  "in",
  "attest",
  "ca",
  "prefix",
  "proof",
  "keys",
] as const;

/** What the system itself writes. */
export const ownMarks = ["managed", "owner"] as const;

/** Whether an object's label switches Kloak on: any other value opts out, none leaves it to the object around it. */
export function enabledBy(meta: ObjectMeta): boolean | undefined {
  const value = meta.labels?.[`${domain}enabled`];
  return value === undefined ? undefined : value === "true";
}

/**
 * The policy written on a Secret. An annotation and a label of the same name must agree.
 * @throws PolicyError if they do not
 */
export function policyInputOf(meta: ObjectMeta): PolicyInput {
  return {
    hosts: setting(meta, "hosts"),
    ports: [setting(meta, "ports"), setting(meta, "port")].filter((text) => text !== undefined),
    in: setting(meta, "in"),
    attest: setting(meta, "attest"),
    proof: setting(meta, "proof"),
    prefix: setting(meta, "prefix"),
  };
}

/** The data keys that are managed; undefined for all. */
export function managedKeysOf(meta: ObjectMeta): readonly string[] | undefined {
  const text = setting(meta, "keys");
  if (text === undefined) return undefined;
  return text
    .split(",")
    .map((key) => key.trim())
    .filter((key) => key !== "");
}

/** One setting of a Secret, from its annotation or label. */
export function setting(meta: ObjectMeta, name: (typeof secretSettings)[number]): string | undefined {
  const annotation = meta.annotations?.[domain + name];
  const label = meta.labels?.[domain + name];
  if (annotation !== undefined && label !== undefined && annotation !== label) {
    const problem = `annotation ${domain}${name} says ${quoted(annotation)} and the label ${quoted(label)}`;
    throw new PolicyError("settings-differ", problem, "keep one of them");
  }
  return annotation ?? label;
}
