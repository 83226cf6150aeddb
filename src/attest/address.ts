import { BlockList, isIPv4 } from "node:net";
import { addressBytes, addressText, isMapped, mappedPrefix } from "../policy/address.ts";

/** RFC 6052 (NAT64), RFC 3056 (6to4): an IPv4 address inside an IPv6 one. */
function embedded(bytes: Buffer): string | undefined {
  const hex = bytes.toString("hex");
  if (hex.startsWith("0064ff9b0000000000000000")) return inner(bytes.subarray(12));
  return hex.startsWith("2002") ? inner(bytes.subarray(2, 6)) : undefined;
}

function inner(bytes: Buffer): string {
  return addressText(Buffer.concat([mappedPrefix, bytes]));
}

/** Link-local addresses hold the services of the node and the cloud, metadata among them; none of these is a host with a public name. */
const refused = new BlockList();
refused.addSubnet("0.0.0.0", 8, "ipv4");
refused.addSubnet("169.254.0.0", 16, "ipv4");
refused.addSubnet("224.0.0.0", 3, "ipv4");
refused.addAddress("::", "ipv6");
refused.addSubnet("fe80::", 10, "ipv6");
refused.addSubnet("ff00::", 8, "ipv6");
refused.addAddress("fd00:ec2::254", "ipv6");

/** The one text of an address; undefined if it is none. */
export function canonicalAddress(text: string): string | undefined {
  const bytes = addressBytes(text);
  return bytes === undefined ? undefined : addressText(bytes);
}

/** Whether the agent may connect there on a workload's behalf. @param address canonical */
export function mayDial(address: string): boolean {
  const bytes = addressBytes(address);
  if (bytes === undefined) return false;
  const text = addressText(bytes);
  if (refused.check(text, isIPv4(text) ? "ipv4" : "ipv6")) return false;
  const behind = isMapped(bytes) ? undefined : embedded(bytes);
  return behind === undefined || !refused.check(behind, "ipv4");
}
