import { readFileSync } from "node:fs";
import { configFindings } from "./config.ts";
import type { Finding } from "./finding.ts";
import { manifestProblems } from "./manifest.ts";
import { parseYaml, type YamlDocument } from "./yaml-source.ts";

/** `kloak secrets validate FILE…`: all findings, by file and line. Exit with 1 if one of them is an error. */
export function validateFiles(files: readonly string[]): readonly Finding[] {
  return files.flatMap((file) => {
    try {
      return validateText(readFileSync(file, "utf8"), file);
    } catch (cause) {
      const why = (cause as NodeJS.ErrnoException).code;
      if (why === undefined) throw cause;
      const finding = { severity: "error", file, line: 1, object: "", remedy: "check the path" } as const;
      return [{ ...finding, problem: `the file cannot be read (${why})` }];
    }
  });
}

/** Findings in the text of manifests (one or several documents) or of a kloak.yaml. */
export function validateText(text: string, file: string): readonly Finding[] {
  return parseYaml(text, file)
    .flatMap((document) => documentFindings(document, file))
    .sort((a, b) => a.line - b.line);
}

function documentFindings(document: YamlDocument, file: string): readonly Finding[] {
  if (document.problems.length > 0) return document.problems;
  if (document.data === null || document.data === undefined) return [];
  if (isConfig(document.data)) return configFindings(document, file);
  return manifestProblems(document.data).map(({ path, ...problem }) => ({
    ...problem,
    file,
    line: document.lineOf(path),
  }));
}

/** A kloak.yaml has no kind, as every object of Kubernetes does. */
function isConfig(data: unknown): boolean {
  return typeof data === "object" && data !== null && !("kind" in data) && !("apiVersion" in data);
}
