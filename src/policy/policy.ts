import { prefixPattern } from "../placeholder/alphabet.ts";
import { type Host, type HostsInput, hostText, parseHosts } from "./hosts.ts";
import { PolicyError, quoted } from "./policy-error.ts";
import { type PortsInput, parsePorts } from "./ports.ts";
import { parseSlots, type Slots, type SlotsInput } from "./slots.ts";
import { suggest } from "./suggest.ts";

/** How a destination must have shown who it is. */
export const attestModes = ["certificate", "dns", "none"] as const;
export type AttestMode = (typeof attestModes)[number];

/** How much of what the cipher side heard must be proven on the wire. */
export const proofs = ["flow", "record", "none"] as const;
export type Proof = (typeof proofs)[number];

/** Where one secret may go, and under which conditions. */
export interface SecretPolicy {
  readonly hosts: readonly Host[];
  /** Of hosts without a port of their own. Empty: any. */
  readonly ports: readonly number[];
  readonly slots: Slots;
  readonly attest: AttestMode;
  readonly proof: Proof;
  readonly prefix: string;
}

/** A policy as written in annotations, in kloak.yaml or on the command line. */
export interface PolicyInput {
  readonly hosts?: HostsInput | undefined;
  readonly ports?: PortsInput | undefined;
  readonly in?: SlotsInput | undefined;
  readonly attest?: string | undefined;
  readonly proof?: string | undefined;
  readonly prefix?: string | undefined;
}

/** The first thing wrong is thrown; `policyProblems` gives all of them. */
export function parsePolicy(input: PolicyInput): SecretPolicy {
  const hosts = parseHosts(input.hosts ?? []);
  const policy: SecretPolicy = {
    hosts,
    ports: parsePorts(input.ports ?? []),
    slots: parseSlots(input.in ?? []),
    attest: oneOf("attest", attestModes, input.attest),
    proof: oneOf("proof", proofs, input.proof),
    prefix: parsePrefix(input.prefix ?? ""),
  };
  checkPorts(policy);
  checkAttest(policy);
  return policy;
}

/** All that is wrong with a policy, each with the setting at fault. */
export function policyProblems(input: PolicyInput): readonly { setting: keyof PolicyInput; error: PolicyError }[] {
  const checks: readonly (readonly [keyof PolicyInput, () => unknown])[] = [
    ["hosts", () => parseHosts(input.hosts ?? [])],
    ["ports", () => parsePorts(input.ports ?? [])],
    ["in", () => parseSlots(input.in ?? [])],
    ["attest", () => oneOf("attest", attestModes, input.attest)],
    ["proof", () => oneOf("proof", proofs, input.proof)],
    ["prefix", () => parsePrefix(input.prefix ?? "")],
  ];
  const found = checks.flatMap(([setting, check]) => problemsOf(setting, check));
  if (found.length > 0) return found;
  return problemsOf("attest", () => parsePolicy(input)).map(({ error }) => ({
    setting: error.code === "ports-conflict" ? "ports" : "attest",
    error,
  }));
}

function problemsOf(setting: keyof PolicyInput, check: () => unknown) {
  try {
    check();
    return [];
  } catch (error) {
    if (error instanceof PolicyError) return [{ setting, error }];
    throw error;
  }
}

function oneOf<T extends string>(setting: string, values: readonly [T, ...T[]], input: string | undefined): T {
  if (input === undefined) return values[0];
  const value = input.trim().toLowerCase();
  const known = values.find((each) => each === value);
  if (known !== undefined) return known;
  const meant = suggest(value, values);
  const remedy = meant === undefined ? `use ${values.join(", ")}` : `did you mean ${quoted(meant)}?`;
  throw new PolicyError(`${setting}-invalid`, `${setting} ${quoted(input)} is unknown`, remedy);
}

function parsePrefix(prefix: string): string {
  if (prefixPattern.test(prefix)) return prefix;
  const problem = `prefix ${quoted(prefix)} has characters that do not survive everywhere`;
  throw new PolicyError("prefix-unsafe", problem, "use letters, digits and - . _ ~ + / = : only");
}

/** `ports` narrows: a host whose own port is not among them could never be reached. */
function checkPorts({ hosts, ports }: SecretPolicy): void {
  if (ports.length === 0) return;
  const conflict = hosts.find((host) => host.port !== undefined && !ports.includes(host.port));
  if (conflict === undefined) return;
  const problem = `host ${quoted(hostText(conflict))} has a port that ports (${ports.join(", ")}) does not list`;
  throw new PolicyError("ports-conflict", problem, `add ${conflict.port} to ports, or remove it from the host`);
}

function checkAttest({ hosts, attest }: SecretPolicy): void {
  if (attest === "none") {
    const name = hosts.find((host) => host.kind !== "network");
    if (name === undefined) return;
    const problem = `attest: none is for addresses only, and host ${quoted(hostText(name))} is a name`;
    const remedy = "anybody could claim the name: use attest: certificate, or list the addresses";
    throw new PolicyError("attest-invalid", problem, remedy);
  }
  if (attest === "dns") {
    const network = hosts.find((host) => host.kind === "network");
    if (network === undefined) return;
    const problem = `attest: dns needs names, and host ${quoted(hostText(network))} is an address`;
    throw new PolicyError("attest-invalid", problem, "use attest: certificate or none, or list the name");
  }
}
