/* Validates what users write on Secrets, by the rules that `kloak secrets validate` has. */
import type { KubeObject } from "../kube/objects.ts";
import { type ManifestProblem, manifestProblems } from "../policy/manifest.ts";

export interface SecretVerdict {
  /** Why it is refused. */
  readonly errors: readonly string[];
  /** Shown to the user, who goes on. */
  readonly warnings: readonly string[];
}

const longestMessage = 2000;

/**
 * Refuses settings that mean nothing. A value that can have no placeholder is a warning: a Secret that works elsewhere must
 * not be refused for it, and its shadow's key stays empty.
 */
export function secretVerdict(secret: KubeObject): SecretVerdict {
  const problems = manifestProblems({ ...secret, kind: "Secret" });
  const text = ({ problem, remedy }: { problem: string; remedy: string }): string =>
    `${problem}; ${remedy}`.slice(0, longestMessage);
  return {
    errors: problems.filter(refuses).map(text),
    warnings: problems.filter((problem) => !refuses(problem)).map(text),
  };
}

function refuses({ severity, path }: ManifestProblem): boolean {
  return severity === "error" && path[0] !== "data" && path[0] !== "stringData";
}
