import { Buffer } from "node:buffer";
import { placeholderProblem } from "../placeholder/placeholder.ts";
import { SecretValue } from "../placeholder/secret-value.ts";
import { domain, managedKeysOf, type ObjectMeta, ownMarks, policyInputOf, secretSettings } from "./annotations.ts";
import { type PolicyInput, policyProblems } from "./policy.ts";
import { PolicyError, quoted } from "./policy-error.ts";
import { suggest } from "./suggest.ts";

type Path = readonly (string | number)[];

/** Something wrong in an object of Kubernetes. */
export interface ManifestProblem {
  readonly severity: "error" | "warning";
  readonly object: string;
  /** Into the object. */
  readonly path: Path;
  readonly problem: string;
  readonly remedy: string;
}

type Report = (severity: ManifestProblem["severity"], path: Path, problem: string, remedy: string) => void;

/** What is wrong with an object as far as Kloak is concerned; objects that it does not look at have no problems. */
export function manifestProblems(data: unknown): readonly ManifestProblem[] {
  if (!isMapping(data)) return [];
  if (Array.isArray(data["items"])) return listProblems(data["items"]);
  const problems: ManifestProblem[] = [];
  const object = objectName(data);
  const report: Report = (severity, path, problem, remedy) =>
    problems.push({ severity, object, path, problem, remedy });
  if (data["kind"] === "Secret") checkSecret(data, report);
  else checkWorkload(data, report);
  return problems;
}

function listProblems(items: readonly unknown[]): readonly ManifestProblem[] {
  return items.flatMap((item, index) =>
    manifestProblems(item).map((problem) => ({ ...problem, path: ["items", index, ...problem.path] })),
  );
}

const places = ["labels", "annotations"] as const;
const metaPath = (place: (typeof places)[number], name: string): Path => ["metadata", place, domain + name];

function checkSecret(secret: Mapping, report: Report): void {
  const meta = checkedMeta(secret, ["metadata"], secretSettings, report);
  if (meta.labels?.[`${domain}managed`] !== undefined) return; // a shadow
  const written = secretSettings.filter((name) => placeOf(meta, name) !== undefined);
  if (written.length === 0) return;
  checkEnabled(meta, report);
  try {
    checkPolicy(meta, report);
    checkValues(secret, meta, report);
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    report("error", ["metadata", "annotations"], error.problem, error.remedy);
  }
}

function checkEnabled(meta: ObjectMeta, report: Report): void {
  const label = meta.labels?.[`${domain}enabled`];
  if (label === "true") return;
  const remedy = `set label ${domain}enabled: "true"`;
  if (label !== undefined) {
    report("warning", metaPath("labels", "enabled"), `${domain}enabled is ${quoted(label)}, which opts out`, remedy);
  } else if (meta.annotations?.[`${domain}enabled`] !== undefined) {
    report("error", metaPath("annotations", "enabled"), `${domain}enabled is an annotation, not a label`, remedy);
  } else {
    report("warning", ["metadata"], "the Secret has settings but is not managed", remedy);
  }
}

function checkPolicy(meta: ObjectMeta, report: Report): void {
  for (const { setting, error } of policyProblems(policyInputOf(meta))) {
    const name = nameOf(meta, setting);
    const place = placeOf(meta, name);
    const remedy =
      error.code === "hosts-missing"
        ? `name the hosts that it may be sent to, as in annotation ${domain}hosts: api.example.com`
        : error.remedy;
    report("error", place === undefined ? ["metadata"] : metaPath(place, name), error.problem, remedy);
  }
}

function nameOf(meta: ObjectMeta, setting: keyof PolicyInput): (typeof secretSettings)[number] {
  return setting === "ports" && placeOf(meta, "ports") === undefined ? "port" : setting;
}

function placeOf(meta: ObjectMeta, name: string): (typeof places)[number] | undefined {
  return places.findLast((place) => meta[place]?.[domain + name] !== undefined);
}

/** The values that stand in the manifest must be able to have placeholders. */
function checkValues(secret: Mapping, meta: ObjectMeta, report: Report): void {
  const keys = managedKeysOf(meta);
  const values = [...valuesIn(secret, "data", report), ...valuesIn(secret, "stringData", report)];
  const known = values.map(({ key }) => key);
  for (const key of keys ?? []) {
    if (known.length === 0 || known.includes(key)) continue;
    const meant = suggest(key, known);
    const remedy =
      meant === undefined ? `use keys of the Secret: ${known.join(", ")}` : `did you mean ${quoted(meant)}?`;
    report("error", metaPath("annotations", "keys"), `${domain}keys names ${quoted(key)}, which is no key`, remedy);
  }
  const { prefix } = policyInputOf(meta);
  for (const { key, place, value } of values) {
    if (keys !== undefined && !keys.includes(key)) continue;
    const found = value === undefined ? undefined : placeholderProblem(value, prefix);
    if (found === undefined || found.code === "prefix-unsafe") continue;
    const remedy = `${found.remedy}, or list only the keys to be managed in annotation ${domain}keys`;
    report("error", [place, key], `key ${key}: ${found.problem}`, remedy);
  }
}

interface WrittenValue {
  readonly key: string;
  readonly place: string;
  readonly value: SecretValue | undefined;
}

function valuesIn(secret: Mapping, place: "data" | "stringData", report: Report): readonly WrittenValue[] {
  const mapping = secret[place];
  if (!isMapping(mapping)) return [];
  return Object.entries(mapping).map(([key, text]) => ({ key, place, value: valueOf(text, place, key, report) }));
}

function valueOf(text: unknown, place: "data" | "stringData", key: string, report: Report): SecretValue | undefined {
  if (typeof text !== "string") {
    report("error", [place, key], `key ${key}: the value is not text`, "put it in quotes");
    return undefined;
  }
  if (place === "stringData") return new SecretValue(text);
  const plain = text.replaceAll(/\s/g, "");
  if (/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(plain)) {
    return new SecretValue(Buffer.from(plain, "base64"));
  }
  report("error", [place, key], `key ${key}: the value is not base64`, "encode it, or write it below stringData");
  return undefined;
}

/** Where the pod's own labels are, by kind. */
const podMetaPaths: Readonly<Record<string, Path>> = {
  Deployment: ["spec", "template", "metadata"],
  ReplicaSet: ["spec", "template", "metadata"],
  StatefulSet: ["spec", "template", "metadata"],
  DaemonSet: ["spec", "template", "metadata"],
  Job: ["spec", "template", "metadata"],
  CronJob: ["spec", "jobTemplate", "spec", "template", "metadata"],
};

/** Namespaces and pods are cloaked by a label; on what makes the pods it has no effect. */
function checkWorkload(object: Mapping, report: Report): void {
  const podPath = podMetaPaths[String(object["kind"])];
  const isCloakable = object["kind"] === "Namespace" || object["kind"] === "Pod";
  if (podPath === undefined && !isCloakable) return;
  const path = podPath ?? ["metadata"];
  const meta = checkedMeta(object, path, ["enabled"], report);
  const value = meta.labels?.[`${domain}enabled`];
  if (value !== undefined && value !== "true" && value !== "false") {
    const problem = `${domain}enabled is ${quoted(value)}, which opts out`;
    report("warning", [...path, "labels", `${domain}enabled`], problem, 'write "true", or "false" to opt out');
  }
  if (
    podPath === undefined ||
    checkedMeta(object, ["metadata"], ["enabled"], report).labels?.[`${domain}enabled`] === undefined
  )
    return;
  const problem = `label ${domain}enabled stands on the ${String(object["kind"])}, not on its pods`;
  report("error", metaPath("labels", "enabled"), problem, `move it to ${podPath.join(".")}.labels`);
}

/** Labels and annotations with the names and types that they must have. */
function checkedMeta(object: Mapping, path: Path, known: readonly string[], report: Report): ObjectMeta {
  const meta = path.reduce<unknown>((part, step) => (isMapping(part) ? part[step] : undefined), object);
  const result: Record<string, Record<string, string>> = {};
  for (const place of places) {
    const mapping = isMapping(meta) ? meta[place] : undefined;
    if (!isMapping(mapping)) continue;
    for (const [key, value] of Object.entries(mapping)) {
      if (!key.startsWith(domain)) continue;
      const name = key.slice(domain.length);
      const at = [...path, place, key];
      if (![...known, ...ownMarks].includes(name))
        report("error", at, `unknown ${place.slice(0, -1)} ${quoted(key)}`, meantBy(name, known));
      if (typeof value !== "string")
        report("error", at, `${key} is not text`, `put it in quotes: ${key}: "${String(value)}"`);
      (result[place] ??= {})[key] = String(value);
    }
  }
  return result;
}

function meantBy(name: string, known: readonly string[]): string {
  const meant = suggest(name, known);
  return meant === undefined
    ? `use ${known.map((each) => domain + each).join(", ")}`
    : `did you mean ${quoted(domain + meant)}?`;
}

type Mapping = Readonly<Record<string, unknown>>;

function isMapping(value: unknown): value is Mapping {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectName(object: Mapping): string {
  const meta = isMapping(object["metadata"]) ? object["metadata"] : {};
  const name = textOf(meta["name"]) ?? textOf(meta["generateName"]) ?? "(no name)";
  const namespace = textOf(meta["namespace"]);
  return `${textOf(object["kind"]) ?? "object"} ${namespace === undefined ? "" : `${namespace}/`}${name}`;
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
