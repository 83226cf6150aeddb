/*
 * The wire of a run: a veth pair between the host and the command's network namespace, addresses, routes and NAT.
 */
import * as v from "valibot";
import type { Addresses, Route } from "./addresses.ts";
import { program } from "./program.ts";
import { hostInterface, tableName } from "./state.ts";

const routeSchema = v.array(
  v.object({
    dst: v.string(),
    dev: v.optional(v.string()),
    type: v.optional(v.string()),
    metric: v.optional(v.number()),
  }),
);
const linkSchema = v.array(v.object({ ifindex: v.number(), ifname: v.string(), mtu: v.number() }));

export interface HostNetwork {
  /** Every destination that the host has a route to, in any table. */
  readonly routes: readonly Route[];
  /** The host can send IPv6 to somewhere else. */
  readonly ipv6: boolean;
  /** Of the interface of the default route. */
  readonly mtu: number;
}

const ethernetMtu = 1500;

export async function hostNetwork(): Promise<HostNetwork> {
  const [ipv4, ipv6, links] = await Promise.all([
    routes("-4"),
    routes("-6").catch(() => []), // a kernel without IPv6
    program("ip", ["-j", "link", "show"]).then((text) => v.parse(linkSchema, JSON.parse(text))),
  ]);
  const uplink = [...ipv4, ...ipv6]
    .filter((route) => route.dst === "default" && route.dev !== undefined)
    .sort(byMetric)[0];
  return {
    routes: [...ipv4, ...ipv6].map((route) => route.dst),
    ipv6: ipv6.some((route) => route.type !== "unreachable" && leadsAway(route.dst) && route.dev !== "lo"),
    mtu: links.find((link) => link.ifname === uplink?.dev)?.mtu ?? ethernetMtu,
  };
}

async function routes(family: "-4" | "-6"): Promise<v.InferOutput<typeof routeSchema>> {
  const text = await program("ip", ["-j", family, "route", "show", "table", "all"]);
  return v.parse(routeSchema, JSON.parse(text || "[]"));
}

function byMetric(a: { metric?: number | undefined }, b: { metric?: number | undefined }): number {
  return (a.metric ?? 0) - (b.metric ?? 0);
}

/** Global unicast or unique local, more than one address, and not one of ours. */
function leadsAway(destination: string): boolean {
  if (destination === "default") return true;
  return (
    /^[23fF][0-9a-dA-D]/.test(destination) && destination.includes("/") && !destination.startsWith("fd4b:6c6f:616b:")
  );
}

/** Makes the pair: `kloak<id>h` here, `eth0` in the namespace of process `launcher`, both down. */
export async function createLink(id: string, launcher: number, mtu: number): Promise<{ ifindex: number }> {
  const name = hostInterface(id);
  const size = ["mtu", String(mtu)];
  await program("ip", [
    ...["link", "add", name, ...size, "type", "veth"],
    ...["peer", "name", "eth0", ...size, "netns", String(launcher)],
  ]);
  const [link] = v.parse(linkSchema, JSON.parse(await program("ip", ["-j", "link", "show", "dev", name])));
  return { ifindex: link?.ifindex ?? 0 };
}

export async function raiseLink(id: string, launcher: number, addresses: Addresses, ipv6: boolean): Promise<void> {
  const name = hostInterface(id);
  const { ipv4: four, ipv6: six } = addresses;
  const here = [
    `addr add ${four.host}/${four.prefix} dev ${name}`,
    ...(ipv6 ? [`addr add ${six.host}/${six.prefix} dev ${name} nodad`] : []),
    `link set ${name} up`,
  ];
  const inside = [
    `addr add ${four.inside}/${four.prefix} dev eth0`,
    ...(ipv6 ? [`addr add ${six.inside}/${six.prefix} dev eth0 nodad`] : []),
    "link set eth0 up",
    `route add 0.0.0.0/0 via ${four.host}`,
    ...(ipv6 ? [`route add ::/0 via ${six.host}`] : []),
  ];
  await Promise.all([
    program("ip", ["-batch", "-"], `${here.join("\n")}\n`),
    program("nsenter", [`--net=/proc/${launcher}/ns/net`, "ip", "-batch", "-"], `${inside.join("\n")}\n`),
  ]);
}

/**
 * NAT, and forwarding for this run alone: of what the host did not forward before, nothing is forwarded now but what
 * goes to or comes from a run.
 */
export function ruleset(id: string, addresses: Addresses, guarded: Guarded): string {
  const name = hostInterface(id);
  const { ipv4, ipv6 } = addresses;
  const interfaces = guarded.interfaces.map((name) => `"${name}"`).join(", ");
  const guards = [
    ...(interfaces === "" ? [] : [`meta nfproto ipv4 iifname { ${interfaces} } oifname != "kloak*" drop`]),
    ...(guarded.ipv6 ? ['meta nfproto ipv6 iifname != "kloak*" oifname != "kloak*" drop'] : []),
  ];
  return `table inet ${tableName(id)} {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr ${ipv4.inside} oifname != "${name}" masquerade
		ip6 saddr ${ipv6.inside} oifname != "${name}" masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "${name}" ip saddr != ${ipv4.inside} drop
		iifname "${name}" ip6 saddr != ${ipv6.inside} drop
		iifname "${name}" accept
		oifname "${name}" ct state established,related accept
		oifname "${name}" drop
		${guards.join("\n\t\t")}
	}
}
`;
}

/** What this host did not forward before kloak made it. */
export interface Guarded {
  /** IPv4: coming from these interfaces. */
  readonly interfaces: readonly string[];
  readonly ipv6: boolean;
}

export async function createTable(id: string, addresses: Addresses, guarded: Guarded): Promise<void> {
  await program("nft", ["-f", "-"], ruleset(id, addresses, guarded));
}

/** Removes link and table, if there. */
export async function removeNetwork(id: string): Promise<void> {
  await Promise.all([
    removeUnlessAbsent("ip", ["link", "del", hostInterface(id)], /Cannot find device|No such device/),
    removeUnlessAbsent("nft", ["delete", "table", "inet", tableName(id)], /No such file or directory/),
  ]);
}

async function removeUnlessAbsent(name: string, args: readonly string[], absent: RegExp): Promise<void> {
  try {
    await program(name, args);
  } catch (error) {
    if (!(error instanceof Error && absent.test(error.message))) throw error;
  }
}
