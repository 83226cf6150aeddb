/* Reads a packet capture and puts together what each TCP connection carried from its client. */
import { KloakError } from "../errors.ts";

const ethernet = 1;
const ipv4Type = 0x0800;
const tcpProtocol = 6;

/**
 * The bytes that each connection to `port` carried to the server, in order, each once. Of IPv4 over Ethernet, which is
 * what the demo makes.
 */
export function clientStreams(pcap: Buffer, port: number): Buffer[] {
  // The pcap format: a header of 24 bytes, then for each packet one of 16 and its bytes, in the writer's byte order.
  if (pcap.length < 24 || pcap.readUInt32LE(0) !== 0xa1b2c3d4 || pcap.readUInt32LE(20) !== ethernet) {
    throw new KloakError(
      "not-a-capture",
      "The capture is no pcap file of Ethernet frames in this machine's byte order.",
    );
  }
  const streams = new Map<string, { readonly first: number; readonly pieces: { at: number; bytes: Buffer }[] }>();
  for (let at = 24; at + 16 <= pcap.length; ) {
    const length = pcap.readUInt32LE(at + 8);
    const segment = tcpSegment(pcap.subarray(at + 16, at + 16 + length), port);
    at += 16 + length;
    if (segment === undefined) continue;
    if (segment.syn) streams.set(segment.flow, { first: (segment.sequence + 1) >>> 0, pieces: [] });
    const stream = streams.get(segment.flow);
    if (stream !== undefined && segment.bytes.length > 0) {
      stream.pieces.push({ at: (segment.sequence - stream.first) >>> 0, bytes: segment.bytes });
    }
  }
  return [...streams.values()].map(({ pieces }) => join(pieces));
}

function tcpSegment(frame: Buffer, port: number) {
  if (frame.length < 34 || frame.readUInt16BE(12) !== ipv4Type) return undefined;
  const ip = frame.subarray(14);
  const tcp = ip.subarray((ip.readUInt8(0) & 15) * 4);
  if (ip.readUInt8(9) !== tcpProtocol || tcp.length < 20 || tcp.readUInt16BE(2) !== port) return undefined;
  // A frame handed over for segmentation may carry no total length; short ones may be padded.
  const total = ip.readUInt16BE(2) || ip.length;
  const header = (tcp.readUInt8(12) >> 4) * 4;
  return {
    flow: `${ip.subarray(12, 20).toString("hex")} ${tcp.readUInt16BE(0)}`,
    sequence: tcp.readUInt32BE(4),
    syn: (tcp.readUInt8(13) & 2) !== 0,
    bytes: tcp.subarray(header, total - (ip.length - tcp.length)),
  };
}

function join(pieces: readonly { at: number; bytes: Buffer }[]): Buffer {
  const parts: Buffer[] = [];
  let end = 0;
  for (const { at, bytes } of pieces.toSorted((a, b) => a.at - b.at)) {
    if (at > end) break; // a hole: what follows cannot be placed
    const fresh = bytes.subarray(end - at);
    parts.push(fresh);
    end += fresh.length;
  }
  return Buffer.concat(parts);
}
