/** TCP segments in a pcap file of Ethernet frames. */
import { internetChecksum } from "../../wire/packets.ts";

export interface CapturedSegment {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly acknowledgment: number;
  readonly syn: boolean;
  readonly ack: boolean;
  readonly rst: boolean;
  readonly payload: Buffer;
  /** False where the interface was to complete it. */
  readonly checksumsRight: () => boolean;
}

export function* capturedSegments(pcap: Buffer): Generator<CapturedSegment> {
  for (let at = 24; at + 16 <= pcap.length; ) {
    const length = pcap.readUInt32LE(at + 8);
    const segment = segmentOf(pcap.subarray(at + 16, at + 16 + length));
    at += 16 + length;
    if (segment) yield segment;
  }
}

function segmentOf(frame: Buffer): CapturedSegment | undefined {
  if (frame.length < 54) return undefined;
  const type = frame.readUInt16BE(12);
  const ip = frame.subarray(14);
  if (type === 0x0800 && ip.readUInt8(9) === 6) {
    const header = ip.subarray(0, (ip.readUInt8(0) & 15) * 4);
    /* 0: larger than the field has room for. */
    const total = ip.readUInt16BE(2) || ip.length;
    return tcpSegment(ip.subarray(header.length, total), ip.subarray(12, 20), header);
  }
  if (type !== 0x86dd) return undefined;
  /* A jumbogram has its hop-by-hop header, of eight bytes, before TCP; so it stands in a capture of BIG TCP. */
  const jumbo = ip.readUInt8(6) === 0 && ip.readUInt16BE(4) === 0;
  if (!jumbo && ip.readUInt8(6) !== 6) return undefined;
  const total = jumbo || ip.readUInt16BE(4) === 0 ? ip.length : 40 + ip.readUInt16BE(4);
  return tcpSegment(ip.subarray(jumbo ? 48 : 40, total), ip.subarray(8, 40), new Uint8Array());
}

function tcpSegment(tcp: Buffer, addresses: Buffer, ipHeader: Uint8Array): CapturedSegment {
  const flags = tcp.readUInt8(13);
  return {
    sourcePort: tcp.readUInt16BE(0),
    destinationPort: tcp.readUInt16BE(2),
    sequence: tcp.readUInt32BE(4),
    acknowledgment: tcp.readUInt32BE(8),
    syn: (flags & 2) !== 0,
    ack: (flags & 16) !== 0,
    rst: (flags & 4) !== 0,
    payload: tcp.subarray((tcp.readUInt8(12) >> 4) * 4),
    checksumsRight: () => {
      const rest = Buffer.alloc(8);
      rest.writeUInt32BE(tcp.length, 0);
      rest[7] = 6;
      return (
        internetChecksum(addresses, rest, tcp) === 0 && (ipHeader.length === 0 || internetChecksum(ipHeader) === 0)
      );
    },
  };
}

/** What one side of a connection has sent, as somebody sees it who looks at every packet. */
export class SeenStream {
  readonly #first: number;
  #bytes = Buffer.alloc(1 << 14);
  #has = Buffer.alloc(1 << 14);
  /** Bytes before this one have all been seen. */
  length = 0;
  /** The sender has been told that all before this one have arrived. */
  acknowledged = 0;
  /** Copies of bytes that were seen before. */
  repeated = 0;

  /** @param first sequence number of its first byte */
  constructor(first: number) {
    this.#first = first;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.length);
  }

  offset(sequence: number): number {
    return (sequence - this.#first) | 0;
  }

  acknowledge(acknowledgment: number): void {
    this.acknowledged = Math.max(this.acknowledged, this.offset(acknowledgment));
  }

  /** @returns offset of a byte that was seen otherwise before, and is no zero in place of what has arrived already */
  see({ sequence, payload }: CapturedSegment): number | undefined {
    const offset = this.offset(sequence);
    this.#grow(offset + payload.length);
    let different: number | undefined;
    for (let i = Math.max(0, -offset); i < payload.length; i++) {
      const at = offset + i;
      const byte = payload[i] ?? 0;
      if (this.#has[at]) {
        this.repeated++;
        if (this.#bytes[at] !== byte && !(byte === 0 && at < this.acknowledged)) different ??= at;
      } else {
        this.#has[at] = 1;
        this.#bytes[at] = byte;
      }
    }
    while (this.#has[this.length]) this.length++;
    return different;
  }

  #grow(size: number): void {
    if (size <= this.#bytes.length) return;
    const room = Math.max(size, this.#bytes.length * 2);
    this.#bytes = Buffer.concat([this.#bytes], room);
    this.#has = Buffer.concat([this.#has], room);
  }
}
