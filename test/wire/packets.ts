/** Ethernet frames with one TCP segment: made for the kernel, taken apart when they come back. */

export interface Ends {
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

export interface Segment extends Ends {
  readonly sequence: number;
  readonly acknowledgment?: number;
  readonly flags?: readonly TcpFlag[];
  readonly payload?: Uint8Array;
}

export type TcpFlag = "fin" | "syn" | "rst" | "psh" | "ack" | "urg";

/** How the segment is wrapped. */
export interface Wrapping {
  /** VLAN tags in the frame itself: TPIDs, outermost first. */
  readonly vlan?: readonly number[];
  /** IPv4 options, a multiple of 4 bytes. */
  readonly ipOptions?: Uint8Array;
  /** TCP options, a multiple of 4 bytes. */
  readonly tcpOptions?: Uint8Array;
  /** IPv6 extension headers before TCP. */
  readonly extensions?: readonly { readonly type: number; readonly body: Uint8Array }[];
  /** A fragment: identification, offset in bytes (of eights), and its end, unless it is the last. */
  readonly fragment?: { readonly identification: number; readonly offset: number; readonly end?: number };
  /** Bytes after the IP packet, as Ethernet pads short frames. */
  readonly padding?: number;
}

const flagBits: Readonly<Record<TcpFlag, number>> = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32 };

/** Internet checksum (RFC 1071) over the parts, each of which starts on an even byte. */
export function internetChecksum(...parts: readonly Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) sum += ((part[i] ?? 0) << 8) | (part[i + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

export function isIpv6(address: string): boolean {
  return address.includes(":");
}

export function addressBytes(address: string): Buffer {
  if (!isIpv6(address)) return Buffer.from(address.split(".").map(Number));
  const [head = "", tail = ""] = address.split("::");
  const words = (text: string): number[] =>
    text === "" ? [] : text.split(":").map((word) => Number.parseInt(word, 16));
  const first = words(head);
  const last = words(tail);
  const all = [...first, ...Array.from({ length: 8 - first.length - last.length }, () => 0), ...last];
  return Buffer.from(all.flatMap((word) => [word >> 8, word & 0xff]));
}

/** As flows and rules know it: IPv4 as ::ffff:a.b.c.d. */
export function mappedAddress(address: string): Buffer {
  const bytes = addressBytes(address);
  return bytes.length === 16 ? bytes : Buffer.concat([Buffer.alloc(10), Buffer.from([0xff, 0xff]), bytes]);
}

function tcpHeader(segment: Segment, options: Uint8Array): Buffer {
  const header = Buffer.alloc(20 + options.length);
  header.writeUInt16BE(segment.sourcePort, 0);
  header.writeUInt16BE(segment.destinationPort, 2);
  header.writeUInt32BE(segment.sequence >>> 0, 4);
  header.writeUInt32BE((segment.acknowledgment ?? 1) >>> 0, 8);
  header[12] = (header.length / 4) << 4;
  header[13] = (segment.flags ?? ["ack"]).reduce((bits, flag) => bits | flagBits[flag], 0);
  header.writeUInt16BE(65535, 14);
  header.set(options, 20);
  return header;
}

function pseudoHeader(segment: Segment, bytes: number): Buffer {
  const rest = Buffer.alloc(8);
  rest.writeUInt32BE(bytes, 0);
  rest[7] = 6;
  return Buffer.concat([addressBytes(segment.source), addressBytes(segment.destination), rest]);
}

/** A frame whose checksums are complete, as a sender without offloads makes it. */
export function frame(segment: Segment, wrapping: Wrapping = {}): Buffer {
  const payload = segment.payload ?? new Uint8Array();
  const tcp = tcpHeader(segment, wrapping.tcpOptions ?? new Uint8Array());
  tcp.writeUInt16BE(internetChecksum(pseudoHeader(segment, tcp.length + payload.length), tcp, payload), 16);
  let body: Buffer = Buffer.concat([tcp, payload]);
  if (wrapping.fragment) body = body.subarray(wrapping.fragment.offset, wrapping.fragment.end);
  const ip = isIpv6(segment.source) ? ipv6(segment, body, wrapping) : ipv4(segment, body, wrapping);
  const type = Buffer.alloc(2);
  type.writeUInt16BE(isIpv6(segment.source) ? 0x86dd : 0x0800);
  const tags = (wrapping.vlan ?? []).map((tpid) => Buffer.from([tpid >> 8, tpid & 0xff, 0, 5]));
  return Buffer.concat([Buffer.alloc(12, 2), ...tags, type, ip, Buffer.alloc(wrapping.padding ?? 0, 0xee)]);
}

function ipv4(segment: Segment, body: Buffer, wrapping: Wrapping): Buffer {
  const options = wrapping.ipOptions ?? new Uint8Array();
  const header = Buffer.alloc(20 + options.length);
  header[0] = 0x40 | (header.length / 4);
  header.writeUInt16BE(header.length + body.length, 2);
  const { identification = 1, offset = 0, end } = wrapping.fragment ?? {};
  header.writeUInt16BE(identification, 4);
  header.writeUInt16BE((offset / 8) | (end === undefined ? 0 : 0x2000), 6);
  header[8] = 64;
  header[9] = 6;
  header.set(addressBytes(segment.source), 12);
  header.set(addressBytes(segment.destination), 16);
  header.set(options, 20);
  header.writeUInt16BE(internetChecksum(header), 10);
  return Buffer.concat([header, body]);
}

function ipv6(segment: Segment, body: Buffer, wrapping: Wrapping): Buffer {
  const chain = [...(wrapping.extensions ?? [])];
  if (wrapping.fragment) chain.push({ type: 44, body: fragmentBody(wrapping.fragment) });
  const types = [...chain.map(({ type }) => type), 6];
  const extensions = chain.map(({ body: rest }, i) => Buffer.concat([Buffer.from([types[i + 1] ?? 6]), rest]));
  const header = Buffer.alloc(40);
  header[0] = 0x60;
  header.writeUInt16BE(
    extensions.reduce((sum, { length }) => sum + length, body.length),
    4,
  );
  header[6] = types[0] ?? 6;
  header[7] = 64;
  header.set(addressBytes(segment.source), 8);
  header.set(addressBytes(segment.destination), 24);
  return Buffer.concat([header, ...extensions, body]);
}

/** A fragment header after its first byte (RFC 8200 4.5). */
function fragmentBody({ identification, offset, end }: NonNullable<Wrapping["fragment"]>): Buffer {
  const body = Buffer.alloc(7);
  body.writeUInt16BE(offset | (end === undefined ? 0 : 1), 1);
  body.writeUInt32BE(identification, 3);
  return body;
}

/** The TCP payload of a frame made from `segment`, and whether its TCP checksum is right. */
export function unframe(bytes: Buffer, segment: Segment, wrapping: Wrapping = {}): { payload: Buffer; valid: boolean } {
  const length = segment.payload?.length ?? 0;
  const end = bytes.length - (wrapping.padding ?? 0);
  const payload = bytes.subarray(end - length, end);
  const tcp = bytes.subarray(end - length - 20 - (wrapping.tcpOptions?.length ?? 0), end - length);
  const sum = internetChecksum(pseudoHeader(segment, tcp.length + length), tcp, payload);
  return { payload, valid: sum === 0 };
}
