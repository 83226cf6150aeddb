import { Discoverer } from "./discover.ts";
import type { Discovery } from "./discover.ts";
import { ElfError } from "./elf/source.ts";
import { libraries } from "./libraries.ts";
import { processFiles } from "./process-files.ts";

export interface HooksReport {
  readonly target: string;
  /** Files with TLS code, or all files if asked for. */
  readonly files: readonly Discovery[];
  readonly examined: number;
  /** Files that could not be read, and libraries that were not found. */
  readonly problems: readonly string[];
  /** covered: all TLS code found is hooked. partial: some is. uncovered: none is. none: none was found. */
  readonly coverage: Coverage;
}

export type Coverage = "covered" | "partial" | "uncovered" | "none";

export function coverageOf(files: readonly Pick<Discovery, "stacks" | "tls">[]): Coverage {
  const hooked = files.some(({ stacks }) => stacks.length > 0);
  if (files.some(({ tls }) => tls === "unknown")) return hooked ? "partial" : "uncovered";
  return hooked ? "covered" : "none";
}

/** What would be hooked in a file and in the libraries that it loads at its start. */
export function fileReport(path: string, environment: Readonly<Record<string, string | undefined>> = {}): HooksReport {
  const { files, missing } = libraries(path, { directory: process.cwd(), environment });
  const problems = missing.map(({ name, neededBy }) => `${name} not found, needed by ${neededBy}`);
  const references = files.map((file) => ({ path: file.hostPath, name: file.path }));
  return report(path, references, problems);
}

/**
 * What would be hooked in a process, by the files it has mapped now.
 *
 * @throws KloakError `process-gone`
 */
export function processReport(pid: number): HooksReport {
  return report(`process ${pid}`, processFiles(pid), []);
}

function report(
  target: string,
  references: readonly { readonly path: string; readonly name: string }[],
  before: readonly string[],
): HooksReport {
  const discoverer = new Discoverer();
  const problems = [...before];
  const files: Discovery[] = [];
  for (const reference of references) {
    try {
      files.push(discoverer.discover(reference));
    } catch (error) {
      if (!(error instanceof ElfError)) throw error;
      problems.push(error.message);
    }
  }
  return {
    target,
    files: files.filter(({ tls, stacks }) => tls !== "none" || stacks.length > 0),
    examined: files.length,
    problems,
    coverage: coverageOf(files),
  };
}

const verdicts: Readonly<Record<Coverage, string>> = {
  covered: "All TLS code that was found is hooked.",
  partial: "Some TLS code is hooked; placeholders sent by the rest go out as they are.",
  uncovered: "TLS code was found that Kloak does not hook: placeholders go out as they are.",
  none: "No TLS code was found. Libraries that a program opens later are not seen in a file; look at the process.",
};

/** For people; the JSON form is the report itself. */
export function formatReport({ target, files, examined, problems, coverage }: HooksReport): string {
  const lines = [`${target}: ${examined} ${examined === 1 ? "file" : "files"} examined`];
  for (const file of files) {
    lines.push("", file.path);
    for (const { stack, version, machine, hooks, offsets } of file.stacks) {
      lines.push(`  ${stack} ${version ?? "of unknown version"}, ${machine}`);
      for (const { symbol, address, fileOffset, point } of hooks) {
        const place = point.offset === 0 ? "entry" : `+${point.offset}`;
        lines.push(
          `    ${symbol.padEnd(20)} address 0x${address.toString(16)} file 0x${fileOffset.toString(16)} ${place} ${point.instruction}, ${point.cost}: ${point.reason}`,
        );
      }
      const read = Object.entries(offsets).map(([name, offset]) => `${name} +${offset}`);
      if (read.length > 0) lines.push(`    offsets checked: ${read.join(", ")}`);
    }
    for (const { stack, reason } of file.refusals) lines.push(`  ${stack} not hooked: ${reason}`);
    for (const { stack, sign } of file.evidence)
      lines.push(`  ${file.tls === "known" ? "" : "not hooked: "}${stack}: ${sign}`);
  }
  lines.push("", ...problems, verdicts[coverage]);
  return `${lines.join("\n")}\n`;
}
