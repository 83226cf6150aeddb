import type { User } from "./user.ts";

/** A secret as the command's environment knows it. */
export interface HiddenValue {
  readonly name: string;
  readonly placeholder: string;
  /** The real value. */
  readonly value: string;
  /** Variable of kloak's own environment that it came from. */
  readonly source: string | undefined;
}

/** Set by bin/kloak for kloak alone. */
export const ignoredSignals = "KLOAK_IGNORED_SIGNALS";

/**
 * The command's environment: kloak's own, with the placeholders, without the variables that the values came from, and
 * with the placeholder wherever else a value stands. A command that runs as another user gets that user's HOME, USER,
 * LOGNAME and SHELL, as sudo would give it.
 */
export function commandEnvironment(
  own: NodeJS.ProcessEnv,
  secrets: readonly HiddenValue[],
  user: User | undefined,
): Record<string, string> {
  const sources = new Set(secrets.map((secret) => secret.source));
  const result: Record<string, string> = {};
  for (const [name, value] of Object.entries(own)) {
    if (value !== undefined && !sources.has(name) && name !== ignoredSignals) result[name] = hide(value, secrets);
  }
  if (user !== undefined)
    Object.assign(result, { HOME: user.home, USER: user.name, LOGNAME: user.name, SHELL: user.shell });
  for (const { name, placeholder } of secrets) result[name] = placeholder;
  return result;
}

function hide(text: string, secrets: readonly HiddenValue[]): string {
  return secrets.reduce((hidden, { value, placeholder }) => hidden.replaceAll(value, () => placeholder), text);
}
