/*
 * What replicas tell each other. An agent talks to one of them, and whoever asks for records or the state asks another: so
 * each follows all others, and has what they have. A replica that begins gets what the others kept.
 */
import { lookup } from "node:dns/promises";
import { sleep } from "../kube/backoff.ts";
import { KubeClient } from "../kube/client.ts";
import type { CertificateSource } from "../tls/certificate-source.ts";
import { type Exchange, HttpError } from "../tls/server.ts";
import type { AuditStore, Entry } from "./audit-store.ts";
import { type KeyPair, makePeerCertificate, peerOrganization, validFor } from "./certificates.ts";
import { beginStream, sendStore, sendText, whileRead } from "./stream.ts";

type PeerLine =
  | { readonly type: "peer"; readonly identity: string }
  | { readonly type: "record"; readonly entry: Entry }
  /** Nodes whose agent is connected there; every two seconds when nothing else is said. */
  | { readonly type: "nodes"; readonly nodes: readonly string[] };

export interface PeersOptions {
  /** Of this replica. */
  readonly identity: string;
  /** A name that leads to every replica's own address. */
  readonly name: string;
  readonly port: number;
  /** Name in the certificate of their servers. */
  readonly serverName: string;
  readonly certificates: CertificateSource;
  readonly authority: () => KeyPair | undefined;
  readonly store: AuditStore;
  readonly nodes: () => readonly string[];
  /** From here on no stream is served. */
  readonly signal: AbortSignal;
  readonly warn: (message: string) => void;
  readonly resolve?: (name: string) => Promise<readonly string[]>;
}

const lookMs = 2000;
const quietMs = 2000;
const silenceMs = 10_000;
/** Of an address where nobody answers: a replica that has gone leaves the name soon. */
const retryMs = 2000;
const certificateMs = 24 * 3600_000;

export class Peers {
  readonly #options: PeersOptions & { resolve: (name: string) => Promise<readonly string[]> };
  /** By address, those that are followed, and our own. */
  readonly #followed = new Set<string>();
  readonly #nodes = new Map<string, readonly string[]>();

  constructor(options: PeersOptions) {
    this.#options = { resolve: addressesOf, ...options };
  }

  /** Nodes whose agent is connected to any replica. */
  get nodes(): readonly string[] {
    return [...new Set([...this.#options.nodes(), ...[...this.#nodes.values()].flat()])];
  }

  /** `GET /v1/peer`, for other replicas alone. @throws HttpError */
  async serve({ response, socket }: Exchange): Promise<undefined> {
    if (!socket.authorized) throw new HttpError(401, "a certificate of this controller is needed");
    if (socket.getPeerCertificate().subject?.O !== peerOrganization)
      throw new HttpError(403, "the certificate is no replica's");
    const { identity, store } = this.#options;
    const signal = AbortSignal.any([whileRead(response), this.#options.signal]);
    beginStream(response);
    const nodes = (): string => lineOf({ type: "nodes", nodes: this.#options.nodes() });
    await sendText(response, lineOf({ type: "peer", identity }) + nodes(), signal);
    const text = (entry: Entry): string => lineOf({ type: "record", entry });
    await sendStore(response, { store, text, ping: nodes, quietMs }, signal);
    return undefined;
  }

  /** Follows the others, until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { name, resolve } = this.#options;
    const streams = new Set<Promise<void>>();
    while (!signal.aborted) {
      const addresses = await resolve(name).catch(() => []); // none has an address yet
      for (const address of addresses) {
        if (this.#followed.has(address)) continue;
        this.#followed.add(address);
        const stream = this.#follow(address, signal).finally(() => streams.delete(stream));
        streams.add(stream);
      }
      await sleep(lookMs, signal);
    }
    await Promise.all(streams);
  }

  /** Until the replica at this address is another, or gone: then it is looked up again. */
  async #follow(address: string, signal: AbortSignal): Promise<void> {
    const { authority, certificates, port, serverName, warn } = this.#options;
    const [issuer, identity] = [authority(), certificates.identity];
    if (issuer === undefined || identity === undefined) return void this.#followed.delete(address);
    const own = await makePeerCertificate(issuer, validFor(certificateMs));
    const client = new KubeClient({
      server: new URL(`https://${address.includes(":") ? `[${address}]` : address}:${port}`),
      ca: identity.trust,
      authorization: () => undefined,
      certificate: { cert: own.certificate, key: own.key },
      verification: { servername: serverName },
    });
    let isOurselves = false;
    try {
      for await (const line of client.lines("/v1/peer", { signal, silenceMs })) {
        if (!this.#hear(address, line as PeerLine)) {
          isOurselves = true;
          return;
        }
      }
    } catch (error) {
      if (!signal.aborted) warn(`replica ${address}: ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      client.close();
      this.#nodes.delete(address);
      if (!isOurselves) {
        await sleep(retryMs, signal);
        this.#followed.delete(address);
      }
    }
  }

  /** False if it is ourselves that we hear. */
  #hear(address: string, line: PeerLine): boolean {
    if (line.type === "peer") return line.identity !== this.#options.identity;
    if (line.type === "record") this.#options.store.take(line.entry);
    else this.#nodes.set(address, line.nodes);
    return true;
  }
}

function lineOf(line: PeerLine): string {
  return `${JSON.stringify(line)}\n`;
}

async function addressesOf(name: string): Promise<readonly string[]> {
  return (await lookup(name, { all: true })).map(({ address }) => address);
}
