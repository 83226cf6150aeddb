import { PolicyError, quoted } from "./policy-error.ts";

/**
 * The entries of a comma-separated string, or of a list of such strings.
 * @param what names the setting in messages: `hosts`
 */
export function entriesOf(what: string, input: string | readonly string[]): readonly string[] {
  const parts = typeof input === "string" ? [input] : input;
  return parts.flatMap((part) => {
    const entries = part.split(",").map((entry) => entry.trim());
    if (part.trim() !== "" && entries.includes("")) {
      throw new PolicyError("list-gap", `${what} ${quoted(part)} has an empty entry`, "remove the comma too many");
    }
    return entries.filter((entry) => entry !== "");
  });
}
