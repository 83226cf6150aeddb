/** A workload's connection, segment by segment, through the real programs. */
import { randomInt } from "node:crypto";
import { Cipher, monotonicNs } from "./cipher.ts";
import * as tls from "./client-hello.ts";
import type { Tunables } from "./kernel.ts";
import { Kernel } from "./kernel.ts";
import type { TcpFlag, Wrapping } from "./packets.ts";
import { frame, mappedAddress, unframe } from "./packets.ts";
import type { WireEvent } from "./rows.ts";
import * as rows from "./rows.ts";

export const workload = 7;
export const secret = 11;
export const host = "api.example.com";
export const port = 443;

export interface ConnectionOptions {
  readonly source?: string;
  readonly destination?: string;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly sequence?: number;
  readonly wrapping?: Wrapping;
  /** Whether the peer answers the SYN; default: it does. */
  readonly answered?: boolean;
}

/** What came out for one segment: its payload as it leaves, or undefined if it was dropped. */
export type Left = Buffer | undefined;

export class Lab {
  readonly kernel: Kernel;

  constructor(tunables: Tunables = {}) {
    this.kernel = new Kernel(tunables);
  }

  /** Forgets all connections and rules; allows `secret` to go to `host`, which is attested at the usual address. */
  async reset(): Promise<void> {
    const names = ["flows", "outstanding", "hellos", "keys", "patches", "region_chunks", "fingerprints", "shares"];
    for (const name of [...names, "hosts", "networks", "attestations", "interfaces"]) this.kernel.table(name).clear();
    this.kernel.table("interfaces").set(Buffer.from([1, 0, 0, 0]), rows.interfaceRow(workload));
    this.allow(host);
    this.attest("192.0.2.1");
    this.attest("2001:db8::1");
    this.kernel.events();
  }

  allow(
    name: string,
    options: { kind?: number; ports?: readonly number[]; secret?: number; attest?: number } = {},
  ): void {
    const { kind = rows.hostKind.exact, ports = [], attest = rows.attestMode.certificate } = options;
    for (const number of [options.secret ?? secret, 0]) {
      const key = rows.hostKey(number, kind, this.kernel.hash(name));
      this.kernel.table("hosts").set(key, rows.hostRule(ports, attest));
    }
  }

  attest(address: string, options: { name?: string; port?: number; granted?: boolean; mode?: number } = {}): void {
    const { granted = true, mode = rows.attestMode.certificate } = options;
    const name = options.name === "" ? 0n : this.kernel.hash(options.name ?? host);
    const key = rows.attestationKey(mappedAddress(address), name, options.port ?? port, mode);
    this.kernel.table("attestations").set(key, rows.attestation(monotonicNs() + 3_600_000_000_000n, granted));
  }

  async events(): Promise<WireEvent[]> {
    return this.kernel.events().map(rows.decodeEvent);
  }

  cipher(options: { version?: number; algorithm?: number; workload?: number } = {}): Cipher {
    return new Cipher(
      this.kernel,
      options.workload ?? workload,
      options.version ?? rows.version.tls13,
      options.algorithm ?? rows.algorithm.aes128,
    );
  }

  connect(options: ConnectionOptions = {}): Connection {
    const connection = new Connection(this, options);
    connection.syn();
    return connection;
  }

  /** The fewest words for a TLS 1.3 client up to its first request. */
  tls13(options: ConnectionOptions & { readonly hello?: Uint8Array } = {}): { connection: Connection; cipher: Cipher } {
    const connection = this.connect(options);
    connection.send(tls.record(22, options.hello ?? tls.clientHello([tls.serverName(host), tls.supportedVersions])));
    connection.send(tls.changeCipherSpec);
    connection.send(this.cipher().seal({ type: 22, length: 53 }).sent);
    return { connection, cipher: this.cipher() };
  }

  /** The same for TLS 1.2. */
  tls12(options: ConnectionOptions & { readonly algorithm?: number } = {}): { connection: Connection; cipher: Cipher } {
    const connection = this.connect(options);
    connection.send(tls.record(22, tls.clientHello([tls.serverName(host)])));
    connection.send(tls.record(22, tls.handshake(16, Buffer.alloc(66, 1))));
    const cipher = this.cipher({ version: rows.version.tls12, algorithm: options.algorithm ?? rows.algorithm.aes128 });
    connection.send(Buffer.concat([tls.changeCipherSpec, cipher.seal({ type: 22, length: 16 }).sent]));
    return { connection, cipher };
  }
}

let ports = 20000;

export class Connection {
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly wrapping: Wrapping;
  /** Sequence number of the first byte of the stream. */
  readonly first: number;
  /** Bytes sent so far. */
  sent = 0;
  readonly #lab: Lab;
  readonly #answered: boolean;

  constructor(lab: Lab, options: ConnectionOptions) {
    this.#lab = lab;
    this.#answered = options.answered ?? true;
    this.destination = options.destination ?? "192.0.2.1";
    this.source = options.source ?? (this.destination.includes(":") ? "2001:db8::7" : "198.51.100.7");
    this.sourcePort = options.sourcePort ?? ports++;
    this.destinationPort = options.destinationPort ?? port;
    this.wrapping = options.wrapping ?? {};
    this.first = ((options.sequence ?? randomInt(2 ** 32)) + 1) % 2 ** 32;
  }

  /** The workload's SYN, and the peer's answer to it. */
  syn(): void {
    this.segment(-1, new Uint8Array(), ["syn"]);
    if (this.#answered) this.acknowledge(0, ["syn", "ack"]);
  }

  /** Sends the next bytes as one segment. */
  send(bytes: Uint8Array, flags: readonly TcpFlag[] = ["ack", "psh"]): Left {
    const left = this.segment(this.sent, bytes, flags);
    this.sent += bytes.length;
    return left;
  }

  /** Sends bytes that stand at `offset` of the stream as one segment, once more or for the first time. */
  segment(
    offset: number,
    bytes: Uint8Array,
    flags: readonly TcpFlag[] = ["ack", "psh"],
    wrapping = this.wrapping,
  ): Left {
    const segment = { ...this.#ends(), sequence: (this.first + offset) % 2 ** 32, flags, payload: bytes };
    const { pass, packet } = this.#lab.kernel.run("wire_egress", frame(segment, wrapping));
    if (!pass) return undefined;
    const { payload, valid } = unframe(packet, segment, wrapping);
    if (!valid) throw new Error("the packet that leaves has a wrong TCP checksum");
    return payload;
  }

  /** The peer acknowledges the first `offset` bytes of the stream. */
  acknowledge(offset: number, flags: readonly TcpFlag[] = ["ack"]): boolean {
    const { source, destination, sourcePort, destinationPort } = this.#ends();
    return this.#lab.kernel.run(
      "wire_return",
      frame({
        source: destination,
        destination: source,
        sourcePort: destinationPort,
        destinationPort: sourcePort,
        sequence: 1,
        acknowledgment: (this.first + offset) % 2 ** 32,
        flags,
      }),
    ).pass;
  }

  #ends(): { source: string; destination: string; sourcePort: number; destinationPort: number } {
    const { source, destination, sourcePort, destinationPort } = this;
    return { source, destination, sourcePort, destinationPort };
  }
}

export { tls };
