import * as v from "valibot";

const text = (what: string) => v.string(`${what} must be text; put it in quotes`);
const list = (what: string) => v.union([v.string(), v.array(v.string())], `${what} must be text or a list of texts`);
const port = v.union([v.number(), v.string()]);

const valueMessage =
  "value must be one of { env: VARIABLE }, { file: PATH } or { command: [PROGRAM, ARGUMENT, …] }; the secret itself does not belong in this file";

const value = v.union(
  [
    v.strictObject({ env: v.string() }),
    v.strictObject({ file: v.string() }),
    v.strictObject({ command: v.pipe(v.array(v.string()), v.minLength(1, valueMessage)) }),
  ],
  valueMessage,
);

const secret = v.strictObject({
  value,
  hosts: list("hosts"),
  ports: v.optional(v.union([port, v.array(port)], "ports must be a number, text, or a list of them")),
  in: v.optional(list("in")),
  attest: v.optional(text("attest")),
  ca: v.optional(text("ca")),
  prefix: v.optional(text("prefix")),
  proof: v.optional(text("proof")),
});

/** kloak.yaml by its types. What the texts mean is for the parsers of this folder. */
export const configSchema = v.strictObject({
  secrets: v.record(v.string(), secret, "secrets must be a mapping of names to settings"),
});

export type ConfigData = v.InferOutput<typeof configSchema>;

/** Keys that a mapping at a path may have, for suggestions. */
export function knownKeys(path: readonly (string | number)[]): readonly string[] {
  if (path.length === 0) return Object.keys(configSchema.entries);
  if (path.length === 2) return Object.keys(secret.entries);
  return ["env", "file", "command"];
}
