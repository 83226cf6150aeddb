import { addressBytes, addressText, networkOf } from "../policy/address.ts";
import type { Host, NetworkHost } from "../policy/hosts.ts";
import type { AttestMode, SecretPolicy } from "../policy/policy.ts";
import type { AttestationKey } from "./verdict.ts";

/** Of one secret: where it may go, how that is shown, and which roots it trusts besides the system's. */
export interface AttestRule extends Pick<SecretPolicy, "hosts" | "ports" | "attest"> {
  /** PEM, each with one certificate or several. */
  readonly roots: readonly string[];
}

/** What can be attested before anybody asks: exact names, and single addresses, with the ports to expect. */
export interface Ahead {
  /** A name to resolve, or an address. */
  readonly host: string;
  readonly named: boolean;
  readonly port: number;
  readonly mode: AttestMode;
}

/** One host of one secret. */
interface Permission {
  readonly ports: readonly number[];
  readonly attest: AttestMode;
  readonly roots: readonly string[];
}

/** Ports on which allowed hosts are attested ahead of time when their rule names none. */
const usualPorts = [443];

/** The rules of all secrets, indexed by host: there may be thousands, and a question comes with every new destination. */
export class RuleSet {
  readonly ahead: readonly Ahead[];
  readonly #names = new Map<string, Permission[]>();
  readonly #networks: (Permission & { readonly network: NetworkHost })[] = [];

  constructor(rules: readonly AttestRule[]) {
    const ahead = new Map<string, Ahead>();
    for (const { hosts, ports, attest, roots } of rules) {
      for (const host of hosts) {
        const permission = { ports: host.port === undefined ? ports : [host.port], attest, roots };
        if (host.kind === "network") {
          this.#networks.push({ ...permission, network: host });
        } else {
          const key = indexOf(host.kind, host.name);
          this.#names.set(key, [...(this.#names.get(key) ?? []), permission]);
        }
        for (const each of aheadOf(host, permission)) ahead.set(`${each.mode} ${each.host} ${each.port}`, each);
      }
    }
    this.ahead = [...ahead.values()];
  }

  /** Whether any secret asks for this attestation. If none does, it is not worth a connection. */
  allows(key: AttestationKey): boolean {
    return this.#permissions(key).length > 0;
  }

  /**
   * The extra roots for one attestation. A verdict is per name, not per secret: two secrets for the same name share it,
   * and so trust each other's roots for that name, and for that name only.
   */
  roots(key: AttestationKey): string[] {
    return [...new Set(this.#permissions(key).flatMap(({ roots }) => roots))].sort();
  }

  #permissions(key: AttestationKey): Permission[] {
    return this.#byHost(key).filter(
      ({ ports, attest }) => attest === key.mode && (ports.length === 0 || ports.includes(key.port)),
    );
  }

  #byHost({ name, address }: AttestationKey): readonly Permission[] {
    if (name === null) {
      const bytes = addressBytes(address);
      if (bytes === undefined) return [];
      return this.#networks.filter(({ network }) => networkOf(bytes, network.bits).equals(network.address));
    }
    const exact = this.#names.get(indexOf("exact", name)) ?? [];
    const dot = name.indexOf(".");
    const wildcard = dot > 0 ? (this.#names.get(indexOf("wildcard", name.slice(dot + 1))) ?? []) : [];
    return [...exact, ...wildcard];
  }
}

function indexOf(kind: "exact" | "wildcard", name: string): string {
  return `${kind} ${name}`;
}

function aheadOf(host: Host, { ports, attest: mode }: Permission): Ahead[] {
  const all = ports.length === 0 ? usualPorts : ports;
  if (host.kind === "network") {
    return host.bits === 128 ? all.map((port) => ({ host: addressText(host.address), named: false, port, mode })) : [];
  }
  return host.kind === "exact" ? all.map((port) => ({ host: host.name, named: true, port, mode })) : [];
}
