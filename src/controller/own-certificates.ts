/*
 * Certificates that the controller makes for itself, kept in a Secret of its namespace so that all replicas have the
 * same. Any replica may renew: of two who write at once one is refused and reads what the other wrote. An authority that
 * is replaced stays trusted until it ends, so that nobody meets a certificate that it cannot verify yet.
 */
import { Buffer } from "node:buffer";
import type { KubeClient } from "../kube/client.ts";
import { sleep } from "../kube/backoff.ts";
import { hasStatus } from "../kube/error.ts";
import type { ConfigMap, Secret } from "../kube/objects.ts";
import { resources } from "../kube/resource.ts";
import type { CertificateSource, ServerIdentity } from "../tls/certificate-source.ts";
import { type KeyPair, makeAuthority, makeServerCertificate, remainingMs, validFor } from "./certificates.ts";

export interface OwnCertificatesOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly secretName: string;
  /** ConfigMap that tells agents and others whom to trust: `ca.crt`. */
  readonly trustName: string;
  /** Names under which we are reached. */
  readonly names: readonly string[];
  readonly warn: (message: string) => void;
  readonly authorityMs?: number;
  readonly serverMs?: number;
  readonly now?: () => number;
}

const dayMs = 24 * 3600_000;
const lookEveryMs = 60_000;

/** What the Secret holds, as PEM. */
interface Kept {
  readonly authority: KeyPair;
  /** Authorities before, still trusted. */
  readonly earlier: readonly string[];
  readonly server: KeyPair;
}

export class OwnCertificates implements CertificateSource {
  readonly #options: OwnCertificatesOptions & { authorityMs: number; serverMs: number; now: () => number };
  readonly #listeners = new Set<(identity: ServerIdentity) => void>();
  #kept: Kept | undefined;

  constructor(options: OwnCertificatesOptions) {
    this.#options = { authorityMs: 730 * dayMs, serverMs: 90 * dayMs, now: Date.now, ...options };
  }

  get identity(): ServerIdentity | undefined {
    return this.#kept === undefined ? undefined : identityOf(this.#kept);
  }

  /** Signs agents' certificates. */
  get authority(): KeyPair | undefined {
    return this.#kept?.authority;
  }

  onChange(listener: (identity: ServerIdentity) => void): void {
    this.#listeners.add(listener);
  }

  /** Reads or makes them; then looks each minute whether to renew, until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.refresh().catch((error: unknown) =>
        this.#options.warn(`certificates: ${error instanceof Error ? error.message : String(error)}`),
      );
      await sleep(this.#kept === undefined ? 1000 : lookEveryMs, signal);
    }
  }

  /** @throws KubeError */
  async refresh(): Promise<void> {
    const { client, namespace, secretName } = this.#options;
    const secret = await client.get<Secret>(resources.secrets, namespace, secretName).catch(absent);
    const before = secret === undefined ? undefined : keptIn(secret);
    const kept = await this.#renewed(before);
    if (kept !== before) {
      try {
        await this.#write(secret, kept);
      } catch (error) {
        if (hasStatus(error, 409)) return this.refresh(); // another replica was first
        throw error;
      }
    }
    await this.#publish(kept);
    if (JSON.stringify(kept) === JSON.stringify(this.#kept)) return;
    this.#kept = kept;
    for (const listener of this.#listeners) listener(identityOf(kept));
  }

  /** The same object if nothing is to be renewed. */
  async #renewed(kept: Kept | undefined): Promise<Kept> {
    const { authorityMs, serverMs, names, now } = this.#options;
    const time = now();
    const authorityEnds = kept === undefined ? 0 : remainingMs(kept.authority.certificate, time);
    if (kept === undefined || authorityEnds < authorityMs / 3) {
      const authority = await makeAuthority("kloak", validFor(authorityMs, time));
      const server = await makeServerCertificate(authority, names, validFor(serverMs, time));
      const earlier = kept === undefined ? [] : [kept.authority.certificate, ...kept.earlier];
      return { authority, server, earlier: earlier.filter((certificate) => remainingMs(certificate, time) > 0) };
    }
    if (remainingMs(kept.server.certificate, time) > serverMs / 3) return kept;
    return { ...kept, server: await makeServerCertificate(kept.authority, names, validFor(serverMs, time)) };
  }

  async #write(secret: Secret | undefined, { authority, earlier, server }: Kept): Promise<void> {
    const { client, namespace, secretName } = this.#options;
    const data = {
      "ca.crt": authority.certificate,
      "ca.key": authority.key,
      "earlier.crt": earlier.join("\n"),
      "tls.crt": server.certificate,
      "tls.key": server.key,
    };
    const object = {
      apiVersion: "v1",
      kind: "Secret",
      type: "Opaque",
      metadata: { namespace, name: secretName, ...secret?.metadata },
      data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString("base64")])),
    };
    if (secret === undefined) await client.create(resources.secrets, namespace, object);
    else await client.replace(resources.secrets, object);
  }

  async #publish(kept: Kept): Promise<void> {
    const { client, namespace, trustName } = this.#options;
    const data = { "ca.crt": identityOf(kept).trust };
    const map = await client.get<ConfigMap>(resources.configMaps, namespace, trustName).catch(absent);
    if (map === undefined) {
      const object = { apiVersion: "v1", kind: "ConfigMap", metadata: { namespace, name: trustName }, data };
      await client.create(resources.configMaps, namespace, object).catch((error: unknown) => {
        if (!hasStatus(error, 409)) throw error;
      });
    } else if (map.data?.["ca.crt"] !== data["ca.crt"]) {
      await client.replace(resources.configMaps, { ...map, data: { ...map.data, ...data } }).catch((error: unknown) => {
        if (!hasStatus(error, 409)) throw error; // at the next look
      });
    }
  }
}

function identityOf({ authority, earlier, server }: Kept): ServerIdentity {
  return { certificate: server.certificate, key: server.key, trust: [authority.certificate, ...earlier].join("\n") };
}

function keptIn(secret: Secret): Kept | undefined {
  const text = (key: string): string => Buffer.from(secret.data?.[key] ?? "", "base64").toString("utf8");
  const authority = { certificate: text("ca.crt"), key: text("ca.key") };
  const server = { certificate: text("tls.crt"), key: text("tls.key") };
  if ([authority.certificate, authority.key, server.certificate, server.key].includes("")) return undefined;
  const earlier = text("earlier.crt").match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  return { authority, server, earlier };
}

function absent(error: unknown): undefined {
  if (hasStatus(error, 404)) return undefined;
  throw error;
}
