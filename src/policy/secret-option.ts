import { parsePolicy, type PolicyInput, type SecretPolicy } from "./policy.ts";
import { noHosts, PolicyError, quoted } from "./policy-error.ts";
import { parseValueSource, type ValueSource } from "./value-source.ts";

/** One secret of a `kloak run`, from a file or from the command line. */
export interface RunSecret {
  /** Of the variable that the command sees. */
  readonly name: string;
  readonly source: ValueSource;
  readonly policy: SecretPolicy;
  /** File with extra roots for attestation, relative to `directory`. */
  readonly ca: string | undefined;
  /** For messages: `secret OPENAI_API_KEY (kloak.yaml:3)`. */
  readonly object: string;
  /** Where relative paths start. */
  readonly directory: string;
}

/** Of an environment variable that a shell can name. */
export const variableName = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Settings that apply to all secrets of the command line. */
export interface SecretOptionDefaults extends Pick<PolicyInput, "attest"> {
  readonly ca?: string | undefined;
  readonly directory?: string | undefined;
}

/** Parses `--secret NAME@HOSTS[=SOURCE]`. */
export function parseSecretOption(text: string, defaults: SecretOptionDefaults = {}): RunSecret {
  const { name, hosts, source } = split(text);
  const object = `--secret ${name}`;
  try {
    return {
      name,
      source: source === undefined ? { kind: "env", name } : parseValueSource(source),
      policy: parsePolicy({ hosts, attest: defaults.attest }),
      ca: defaults.ca,
      object,
      directory: defaults.directory ?? ".",
    };
  } catch (error) {
    throw error instanceof PolicyError ? error.of(object) : error;
  }
}

function split(text: string): { name: string; hosts: string; source: string | undefined } {
  // What follows "=" is not quoted in messages: it may be the secret itself.
  const equals = text.indexOf("=");
  const target = equals === -1 ? text : text.slice(0, equals);
  const at = target.indexOf("@");
  const name = at === -1 ? target : target.slice(0, at);
  if (!variableName.test(name)) {
    const problem = `--secret: ${quoted(name)} is no name for a variable`;
    throw new PolicyError("secret-option", problem, "write --secret NAME@HOSTS[=SOURCE], NAME as in OPENAI_API_KEY");
  }
  const hosts = at === -1 ? "" : target.slice(at + 1);
  if (hosts.trim() === "") throw noHosts(`write --secret ${name}@api.example.com`).of(`--secret ${name}`);
  return { name, hosts, source: equals === -1 ? undefined : text.slice(equals + 1) };
}
