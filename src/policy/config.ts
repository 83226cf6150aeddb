import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import * as v from "valibot";
import { KloakError } from "../errors.ts";
import { type ConfigData, configSchema, knownKeys } from "./config-schema.ts";
import { ConfigurationError, type Finding } from "./finding.ts";
import { parsePolicy, policyProblems } from "./policy.ts";
import { quoted } from "./policy-error.ts";
import { type RunSecret, variableName } from "./secret-option.ts";
import { suggest } from "./suggest.ts";
import type { ValueSource } from "./value-source.ts";
import { parseYaml, type YamlDocument } from "./yaml-source.ts";

/** Reads kloak.yaml. @throws ConfigurationError with a line for each thing wrong */
export function loadConfig(file: string): readonly RunSecret[] {
  return parseConfig(readText(file), file);
}

/** Parses the text of kloak.yaml; `file` is its path, from which relative paths start. */
export function parseConfig(text: string, file: string): readonly RunSecret[] {
  const document = onlyDocument(text, file);
  const findings = configFindings(document, file);
  if (findings.length > 0) throw new ConfigurationError(findings);
  const { secrets } = v.parse(configSchema, document.data);
  return Object.entries(secrets).map(([name, secret]) => ({
    name,
    source: sourceOf(secret.value),
    policy: parsePolicy(secret),
    ca: secret.ca,
    object: `secret ${name} (${file}:${document.lineOf(["secrets", name])})`,
    directory: dirname(resolve(file)),
  }));
}

/** All that is wrong with a kloak.yaml. */
export function configFindings(document: YamlDocument, file: string): readonly Finding[] {
  if (document.problems.length > 0) return document.problems;
  const data = Array.isArray(document.data) ? "list" : (document.data ?? {}); // valibot takes a list for an object
  const checked = v.safeParse(configSchema, data);
  if (!checked.success) return checked.issues.map((issue) => shapeFinding(issue, document, file));
  return Object.entries(checked.output.secrets).flatMap(([name, secret]) =>
    secretFindings(name, secret, document, file),
  );
}

type SecretData = ConfigData["secrets"][string];

function secretFindings(name: string, secret: SecretData, document: YamlDocument, file: string): readonly Finding[] {
  const finding = (path: readonly string[], problem: string, remedy: string): Finding => ({
    severity: "error",
    file,
    line: document.lineOf(["secrets", name, ...path]),
    object: `secret ${name}`,
    problem,
    remedy,
  });
  const odd = variableName.test(name)
    ? []
    : [finding([], `${quoted(name)} is no name for a variable`, "use letters, digits and _, as in OPENAI_API_KEY")];
  const wrong = policyProblems(secret).map(({ setting, error }) => finding([setting], error.problem, error.remedy));
  return [...odd, ...wrong];
}

type Issue = v.InferIssue<typeof configSchema>;

function shapeFinding(issue: Issue, document: YamlDocument, file: string): Finding {
  const path = (issue.path ?? []).map(({ key }) => key as string | number);
  const object = path[0] === "secrets" && path.length > 1 ? `secret ${path[1]}` : "";
  return { severity: "error", file, line: document.lineOf(path), object, ...shapeProblem(issue, path) };
}

function shapeProblem(issue: Issue, path: readonly (string | number)[]): { problem: string; remedy: string } {
  const key = String(path.at(-1) ?? "");
  const around = path.slice(0, -1);
  if (issue.type === "strict_object" && issue.expected === "never") {
    const known = knownKeys(around);
    const meant = suggest(key, known);
    const remedy = meant === undefined ? `use ${known.join(", ")}` : `did you mean ${quoted(meant)}?`;
    return { problem: `unknown key ${quoted(key)}`, remedy };
  }
  if (issue.type === "strict_object" && issue.received === "undefined") return missingKey(key);
  if (issue.type === "strict_object") {
    const what = path.length === 0 ? "the file" : quoted(key);
    return { problem: `${what} must be a mapping`, remedy: `give it the keys ${knownKeys(path).join(", ")}` };
  }
  const [problem = "", remedy = "see the example in the documentation"] = issue.message.split("; ");
  return { problem, remedy };
}

function missingKey(key: string): { problem: string; remedy: string } {
  const remedies: Readonly<Record<string, string>> = {
    secrets: "list the secrets below it, each with value and hosts",
    value: "say where the value comes from: value: { env: VARIABLE }, { file: PATH } or { command: [PROGRAM] }",
    hosts: "name the hosts that it may be sent to, for instance hosts: api.example.com",
  };
  return { problem: `${quoted(key)} is missing`, remedy: remedies[key] ?? "add it" };
}

function sourceOf(value: SecretData["value"]): ValueSource {
  if ("env" in value) return { kind: "env", name: value.env };
  if ("file" in value) return { kind: "file", path: value.file };
  return { kind: "command", command: value.command };
}

function onlyDocument(text: string, file: string): YamlDocument {
  const documents = parseYaml(text, file);
  const [first, second] = documents;
  if (first !== undefined && second === undefined) return first;
  const problem = first === undefined ? "the file is empty" : "the file has more than one document";
  const remedy = "list the secrets below one key secrets";
  const line = second?.lineOf([]) ?? 1;
  throw new ConfigurationError([{ severity: "error", file, line, object: "", problem, remedy }]);
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    const problem = missing ? "does not exist" : `cannot be read (${(cause as NodeJS.ErrnoException).code})`;
    const remedy = missing ? "check the path, or create it" : "check its permissions";
    throw new KloakError("configuration-missing", `configuration ${file} ${problem}; ${remedy}`, { cause });
  }
}
