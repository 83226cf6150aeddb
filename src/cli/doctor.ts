import { checks, type Check, type HostFacts, readFacts } from "../run/host.ts";
import { deadRuns, tidyDeadRuns } from "../run/tidy.ts";
import { Report, write } from "./report.ts";

const marks: Readonly<Record<Check["status"], string>> = { ok: "ok     ", missing: "MISSING", warning: "note   " };

/** `kloak doctor`: returns 1 if something needed is missing. */
export async function doctorCommand(
  options: { readonly json?: boolean; readonly clean?: boolean },
  facts: HostFacts = readFacts(),
): Promise<number> {
  const report = new Report({});
  if (options.clean === true) {
    const { removed, errors } = await tidyDeadRuns();
    for (const { id, command } of removed) report.note(`removed what run ${id} (${command}) had left`);
    for (const error of errors) report.error(error);
    if (removed.length === 0 && errors.length === 0) report.note("no run has left anything");
    if (errors.length > 0) return 1;
  }
  const all = [...checks(facts), leftovers()];
  const fit = all.every(({ status }) => status !== "missing");
  write(
    1,
    options.json === true
      ? `${JSON.stringify({ fit, checks: all }, null, 2)}\n`
      : `${all.map(line).join("\n")}\n${verdict(fit)}\n`,
  );
  return fit ? 0 : 1;
}

function leftovers(): Check {
  const dead = deadRuns();
  const name = "leftovers of earlier runs";
  if (dead.length === 0) return { name, status: "ok", found: "none", remedy: undefined };
  const found = dead.map(({ id, command }) => `${id} (${command})`).join(", ");
  return { name, status: "warning", found, remedy: "kloak doctor --clean removes them; so does the next kloak run" };
}

function line({ name, status, found, remedy }: Check): string {
  return `${marks[status]} ${name}: ${found}${remedy === undefined ? "" : `\n        → ${remedy}`}`;
}

function verdict(fit: boolean): string {
  return fit ? "This host can run Kloak." : "This host cannot run Kloak until what is missing is there.";
}
