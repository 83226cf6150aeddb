/*
 * Addresses for the wire between the host and a command: a /30 of IPv4 and a /126 of IPv6 per run, out of ranges that
 * nothing on this host is routed to.
 */
import { BlockList, isIPv4, isIPv6 } from "node:net";
import { KloakError } from "../errors.ts";

/** Which of the 16384 subnets of each range: names and addresses of a run follow from it. */
export const slotCount = 16384;

export interface Addresses {
  readonly ipv4: { readonly host: string; readonly inside: string; readonly prefix: 30 };
  readonly ipv6: { readonly host: string; readonly inside: string; readonly prefix: 126 };
}

/** Private (RFC 1918) and shared (RFC 6598) ranges of 16 bits, the least used first. */
const ranges = ["10.171", "172.30", "100.115", "10.253", "192.168", "172.19"];

/** Unique local (RFC 4193): "Kloak" as the 40 bits that are to be chosen at random. */
const ipv6Range = "fd4b:6c6f:616b";

/** A destination as `ip route` prints it: an address, an address with prefix, or `default`. */
export type Route = string;

/**
 * The subnet with number `slot` in the first range where no route of the host leads to it; undefined if none is free.
 */
export function addressesFor(slot: number, routes: readonly Route[]): Addresses | undefined {
  const blocks = routedBlocks(routes);
  const high = slot >> 6;
  const low = (slot & 63) * 4;
  const range = ranges.find((range) => {
    const first = `${range}.${high}.${low}`;
    return !overlaps(first, blocks, routes);
  });
  if (range === undefined) return undefined;
  const ipv4 = `${range}.${high}`;
  const ipv6 = `${ipv6Range}:${slot.toString(16)}`;
  return {
    ipv4: { host: `${ipv4}.${low + 1}`, inside: `${ipv4}.${low + 2}`, prefix: 30 },
    ipv6: { host: `${ipv6}::1`, inside: `${ipv6}::2`, prefix: 126 },
  };
}

function routedBlocks(routes: readonly Route[]): BlockList {
  const blocks = new BlockList();
  for (const route of routes) {
    const [address = "", bits] = route.split("/");
    if (isIPv4(address)) blocks.addSubnet(address, bits === undefined ? 32 : Number(bits), "ipv4");
    else if (isIPv6(address)) blocks.addSubnet(address, bits === undefined ? 128 : Number(bits), "ipv6");
  }
  return blocks;
}

/** A route covers a /30, or leads into it. */
function overlaps(first: string, blocks: BlockList, routes: readonly Route[]): boolean {
  const prefix = first.slice(0, first.lastIndexOf("."));
  const base = Number(first.slice(prefix.length + 1));
  const members = [0, 1, 2, 3].map((offset) => `${prefix}.${base + offset}`);
  return members.some((member) => blocks.check(member, "ipv4")) || routes.includes(`${first}/30`);
}

export function noFreeAddresses(): KloakError {
  return new KloakError(
    "no-free-addresses",
    `No private subnet is free for the command: routes of this host cover ${ranges.map((range) => `${range}.0.0/16`).join(", ")}. Remove one of them (\`ip route\`), or the leftovers of earlier runs (\`kloak doctor --clean\`).`,
  );
}
