import { hostKind } from "../dataplane/types.gen.ts";
import { addressText, networkOf } from "./address.ts";
import type { Host, NameHost, NetworkHost } from "./hosts.ts";
import type { SecretPolicy } from "./policy.ts";
import { PolicyError } from "./policy-error.ts";
import { mostPorts } from "./ports.ts";
import { attestNumbers, type HostKey, type HostRule, type NetworkKey, type Row } from "./rows.ts";

/** SipHash-2-4 of a lower-case name without trailing dot, under the data plane's key. */
export type HashName = (name: string) => bigint;

/** Says of rows of `hosts`: allowed by some secret, so worth attesting. */
export const anySecret = 0;

/**
 * The names that a policy allows, as rows of `hosts` for this secret and for `anySecret`; and its single addresses, by
 * which a request to one says its Host. Where that goes is decided by the rows of `networks` all the same.
 */
export function hostRows(secret: number, policy: SecretPolicy, hash: HashName): readonly Row<HostKey, HostRule>[] {
  const names = policy.hosts.filter((host) => host.kind !== "network");
  const rows = names.map((host) => ({
    key: { secret, kind: hostKind[host.kind], name: hash(host.name) },
    value: ruleOf(
      policy,
      names.filter((other) => sameName(host, other)),
    ),
  }));
  const literals = policy.hosts.flatMap((host) =>
    host.kind === "network" && host.bits === 128
      ? [
          {
            key: { secret, kind: hostKind.exact, name: hash(addressText(host.address)) },
            value: ruleOf(
              policy,
              policy.hosts.filter((other) => other.kind === "network" && isInside(host, other)),
            ),
          },
        ]
      : [],
  );
  return mergeHostRows([rows, literals, rows.map((row) => ({ ...row, key: { ...row.key, secret: anySecret } }))]);
}

/** Rows of several secrets: where two have the same key (those of `anySecret` do), what either allows. */
export function mergeHostRows(rows: readonly (readonly Row<HostKey, HostRule>[])[]): readonly Row<HostKey, HostRule>[] {
  const merged = new Map<string, Row<HostKey, HostRule>>();
  for (const row of rows.flat()) {
    const text = `${row.key.secret} ${row.key.kind} ${row.key.name}`;
    const known = merged.get(text);
    merged.set(text, known === undefined ? row : { key: row.key, value: either(known.value, row.value) });
  }
  return [...merged.values()];
}

/**
 * The addresses that a policy allows, as rows of `networks`. The trie finds the longest prefix only, so a network's row
 * also holds what the wider networks around it allow.
 */
export function networkRows(secret: number, policy: SecretPolicy): readonly Row<NetworkKey, HostRule>[] {
  const networks = policy.hosts.filter((host) => host.kind === "network");
  const rows = networks.map((network) => ({
    key: { prefix: 32 + network.bits, secret: inNetworkOrder(secret), address: network.address },
    value: ruleOf(
      policy,
      networks.filter((wider) => isInside(network, wider)),
    ),
  }));
  const distinct = new Map(rows.map((row) => [`${row.key.prefix} ${row.key.address.join(".")}`, row]));
  return [...distinct.values()];
}

function sameName(left: NameHost, right: NameHost): boolean {
  return left.kind === right.kind && left.name === right.name;
}

function isInside(network: NetworkHost, wider: NetworkHost): boolean {
  return wider.bits <= network.bits && networkOf(network.address, wider.bits).equals(wider.address);
}

/** A host without a port of its own takes the policy's; no port at all means any. */
function ruleOf(policy: SecretPolicy, hosts: readonly Host[]): HostRule {
  const attest = attestNumbers[policy.attest];
  const perHost = hosts.map((host) => (host.port === undefined ? policy.ports : [host.port]));
  if (perHost.some((ports) => ports.length === 0)) return { ports: [], portCount: 0, attest };
  const ports = [...new Set(perHost.flat())].sort((a, b) => a - b);
  if (ports.length > mostPorts) {
    const problem = `a host is listed with ${ports.length} ports, ${mostPorts} is the most`;
    throw new PolicyError("ports-too-many", problem, "list it once without a port to allow any, or list fewer");
  }
  return { ports, portCount: ports.length, attest };
}

/** The wider of two rules: only of rows that say where attesting is worthwhile, so being too wide gives nothing away. */
function either(left: HostRule, right: HostRule): HostRule {
  const ports = [...new Set([...left.ports, ...right.ports])].sort((a, b) => a - b);
  const any = left.portCount === 0 || right.portCount === 0 || ports.length > mostPorts;
  const attest = Math.min(left.attest, right.attest);
  return any ? { ports: [], portCount: 0, attest } : { ports, portCount: ports.length, attest };
}

function inNetworkOrder(number: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, number, false);
  return view.getUint32(0, true);
}
