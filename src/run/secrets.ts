/* The secrets of a run: from configuration and options to values with placeholders. */
import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { X509Certificate } from "node:crypto";
import { KloakError } from "../errors.ts";
import { makePlaceholder, type SecretValue, tokenText } from "../placeholder/index.ts";
import { loadConfig } from "../policy/config.ts";
import type { SecretPolicy } from "../policy/policy.ts";
import { parseSecretOption, type RunSecret } from "../policy/secret-option.ts";
import { isPercentEncoded } from "../policy/slots.ts";
import { readValue } from "../policy/value-source.ts";
import { errorCode } from "./native.ts";

export interface LoadedSecret {
  /** Of the variable that the command sees. */
  readonly name: string;
  readonly value: SecretValue;
  readonly placeholder: string;
  readonly policy: SecretPolicy;
  /** Extra roots, PEM. */
  readonly roots: readonly string[];
  /** Variable of kloak's environment that the value came from. */
  readonly variable: string | undefined;
  /** File that the value came from. */
  readonly file: string | undefined;
}

export interface SecretOptions {
  readonly config?: string | undefined;
  readonly secret?: readonly string[] | undefined;
  readonly ca?: string | undefined;
  readonly attest?: string | undefined;
}

const usualConfig = "kloak.yaml";

/** Reads configuration and options, then the values. An option comes before the file's secret of the same name. */
export async function loadSecrets(options: SecretOptions, environment: NodeJS.ProcessEnv): Promise<LoadedSecret[]> {
  const { ca, attest } = options;
  const file = options.config ?? (existsSync(usualConfig) ? usualConfig : undefined);
  const fromFile = file === undefined ? [] : loadConfig(file);
  const fromOptions = (options.secret ?? []).map((text) => parseSecretOption(text, { attest }));
  const secrets = new Map([...fromFile, ...fromOptions].map((secret) => [secret.name, secret]));
  const shared = ca === undefined ? [] : [readRoots(ca, "--ca")];
  const loaded: LoadedSecret[] = [];
  const taken = new Set<string>();
  for (const secret of secrets.values()) {
    const one = await load(secret, shared, taken, environment);
    taken.add(tokenText(one.placeholder));
    loaded.push(one);
  }
  return loaded;
}

async function load(
  secret: RunSecret,
  shared: readonly string[],
  taken: ReadonlySet<string>,
  environment: NodeJS.ProcessEnv,
): Promise<LoadedSecret> {
  const { name, source, policy, object, directory } = secret;
  const own = secret.ca === undefined ? [] : [readRoots(resolve(directory, secret.ca), `${object}: ca`)];
  const value = await readValue(source, { object, directory, env: environment });
  return {
    name,
    value,
    placeholder: makePlaceholder(value, {
      prefix: policy.prefix,
      inUrl: isPercentEncoded(policy.slots),
      taken,
      object,
    }),
    policy,
    roots: [...shared, ...own],
    variable: source.kind === "env" ? source.name : undefined,
    file: source.kind === "file" ? coverable(resolve(directory, source.path)) : undefined,
  };
}

/** PEM certificates. @throws KloakError naming the file if there is none in it */
function readRoots(file: string, object: string): string {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    const why =
      errorCode(cause) === "ENOENT" ? "does not exist" : `cannot be read (${errorCode(cause) ?? String(cause)})`;
    throw new KloakError("ca-unreadable", `${object}: file ${file} ${why}; check the path`, { cause });
  }
  const certificates =
    text.match(/-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]+-----END (?:TRUSTED )?CERTIFICATE-----/g) ?? [];
  if (certificates.length === 0) {
    const next = "give certificates in PEM form (-----BEGIN CERTIFICATE-----)";
    throw new KloakError("ca-invalid", `${object}: file ${file} holds no certificate; ${next}`);
  }
  for (const [index, certificate] of certificates.entries())
    check(certificate, `${object}: certificate ${index + 1} in ${file}`);
  return certificates.join("\n");
}

function check(certificate: string, object: string): void {
  try {
    void new X509Certificate(certificate).subject;
  } catch (cause) {
    throw new KloakError("ca-invalid", `${object} cannot be read; export it again in PEM form`, { cause });
  }
}

/** Only a plain file can be hidden behind another; a pipe has been read and is empty now. */
function coverable(path: string): string | undefined {
  const real = realpathSync(path);
  return statSync(real).isFile() && !/^\/(proc|dev|sys)\//.test(real) ? real : undefined;
}

/** @throws KloakError if an argument holds a value: every process of the host can read it */
export function refuseArguments(command: readonly string[], secrets: readonly LoadedSecret[]): void {
  for (const { name, value } of secrets) {
    const index = command.findIndex((argument) => argument.includes(value.reveal().toString("utf8")));
    if (index < 0) continue;
    const where = index === 0 ? "The command's name" : `Argument ${index} of the command`;
    const next = `Let the command read it from variable ${name}, which holds the placeholder`;
    throw new KloakError(
      "secret-in-arguments",
      `${where} holds the value of secret ${name}, for every process to read. ${next}.`,
    );
  }
}
