import { Buffer } from "node:buffer";
import { isIPv4, isIPv6 } from "node:net";

const ipv4Bytes = 4;
/** ::ffff:0:0/96 (RFC 4291 2.5.5.2): how the kernel tables hold IPv4. */
export const mappedPrefix = Buffer.from("00000000000000000000ffff", "hex");

/** The 16 bytes of an address as the kernel tables hold it (IPv4 as ::ffff:a.b.c.d); undefined if it is none. */
export function addressBytes(text: string): Buffer | undefined {
  if (isIPv4(text)) return Buffer.concat([mappedPrefix, ipv4Part(text)]);
  if (!isIPv6(text) || text.includes("%")) return undefined;
  const [head = "", tail] = withHexTail(text).split("::");
  const before = groups(head);
  const after = groups(tail ?? "");
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => 0);
  const bytes = Buffer.alloc(16);
  for (const [index, group] of [...before, ...zeros, ...after].entries()) bytes.writeUInt16BE(group, index * 2);
  return bytes;
}

/** The text of 16 bytes: dotted for IPv4-mapped ones, else as RFC 5952. */
export function addressText(bytes: Uint8Array): string {
  const address = Buffer.from(bytes);
  if (isMapped(address)) return [...address.subarray(mappedPrefix.length)].join(".");
  const hex = Array.from({ length: 8 }, (_, index) => address.readUInt16BE(index * 2).toString(16));
  return withLongestZerosShort(hex);
}

export function isMapped(bytes: Uint8Array): boolean {
  return mappedPrefix.equals(bytes.subarray(0, mappedPrefix.length));
}

/** The address with all bits after the first `bits` cleared. */
export function networkOf(address: Uint8Array, bits: number): Buffer {
  return Buffer.from(address.map((byte, index) => byte & maskByte(bits - index * 8)));
}

function maskByte(bits: number): number {
  return bits >= 8 ? 0xff : bits <= 0 ? 0 : (0xff << (8 - bits)) & 0xff;
}

function ipv4Part(text: string): Buffer {
  return Buffer.from(text.split(".").map(Number)).subarray(0, ipv4Bytes);
}

function withHexTail(text: string): string {
  const colon = text.lastIndexOf(":");
  const last = text.slice(colon + 1);
  if (!last.includes(".")) return text;
  const bytes = ipv4Part(last);
  return `${text.slice(0, colon + 1)}${bytes.readUInt16BE(0).toString(16)}:${bytes.readUInt16BE(2).toString(16)}`;
}

function groups(text: string): number[] {
  return text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
}

/** RFC 5952 4.2: the longest run of at least two zero groups, the first of several, becomes `::`. */
function withLongestZerosShort(hex: readonly string[]): string {
  let best = { start: 0, length: 1 };
  for (let start = 0; start < hex.length; start++) {
    let length = 0;
    while (hex[start + length] === "0") length++;
    if (length > best.length) best = { start, length };
  }
  if (best.length < 2) return hex.join(":");
  return `${hex.slice(0, best.start).join(":")}::${hex.slice(best.start + best.length).join(":")}`;
}
