/*
 * Kernel settings that a run needs and other runs share: forwarding. Each record says what it found; the last run that
 * needs a setting puts it back, unless somebody else has changed it since.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { KloakError } from "../errors.ts";
import { errorCode } from "./native.ts";
import { isAlive, list, type RunRecord, save } from "./state.ts";

const ipv4 = "/proc/sys/net/ipv4/conf";
const ipv6 = "/proc/sys/net/ipv6/conf";

export interface Wanted {
  readonly path: string;
  readonly value: string;
}

/** Interfaces of the host that packets come and go by: all but loopback and the runs' own. */
export function uplinks(): string[] {
  return readdirSync(ipv4).filter((name) => !["all", "default", "lo"].includes(name) && !name.startsWith("kloak"));
}

/** What must be set so that packets of `hostInterface` are passed on, and answers come back. */
export function forwardingFor(hostInterface: string, withIpv6: boolean): Wanted[] {
  const wanted = [hostInterface, ...uplinks()].map((name) => ({ path: `${ipv4}/${name}/forwarding`, value: "1" }));
  return withIpv6 ? [...wanted, ...forwardingIpv6(hostInterface)] : wanted;
}

function forwardingIpv6(hostInterface: string): Wanted[] {
  // Linux 6.17 (commit f24987ef6959): per interface. It leaves router advertisements alone.
  if (existsSync(`${ipv6}/all/force_forwarding`)) {
    return [hostInterface, ...uplinks()].map((name) => ({ path: `${ipv6}/${name}/force_forwarding`, value: "1" }));
  }
  // Before, there is one switch for all, and a host that forwards forgets the routes that it was advertised, unless
  // accept_ra is 2 (ip-sysctl.rst). So that comes first, and is put back last.
  const advertised = uplinks().filter((name) => read(`${ipv6}/${name}/accept_ra`) === "1");
  return [
    ...advertised.map((name) => ({ path: `${ipv6}/${name}/accept_ra`, value: "2" })),
    { path: `${ipv6}/all/forwarding`, value: "1" },
  ];
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

/**
 * Applies what is wanted and notes in the record, before each change, what was there; call it with the state locked.
 * What another live run has changed counts as changed for this one too, so that the last of them puts it back.
 */
export function apply(record: RunRecord, wanted: readonly Wanted[]): void {
  const others = list().filter((other) => other.id !== record.id && isAlive(other.kloak));
  for (const { path, value } of wanted) {
    const current = read(path);
    if (current === undefined) continue; // no such interface any more, or no IPv6
    const inherited = others.flatMap((other) => other.settings).find((setting) => setting.path === path);
    if (current === value && inherited === undefined) continue;
    record.settings.push({ path, before: inherited?.before ?? current, now: value });
    save(record);
    if (current !== value) write(path, value);
  }
}

/** Puts back what no other run in `others` needs; call it with the state locked. */
export function restore(record: RunRecord, others: readonly RunRecord[]): void {
  const needed = new Set(others.flatMap((other) => other.settings.map((setting) => setting.path)));
  for (const { path, before, now } of record.settings.toReversed()) {
    if (!needed.has(path) && read(path) === now) write(path, before);
  }
}

function write(path: string, value: string): void {
  try {
    writeFileSync(path, value);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return; // the interface has gone
    throw new KloakError("setting-refused", `${path} cannot be set to ${value}. Is /proc/sys mounted read-only here?`, {
      cause: error,
    });
  }
}
