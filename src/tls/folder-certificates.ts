/* Certificates that others put into a folder: a mounted Secret of type kubernetes.io/tls, renewed by cert-manager or by hand. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { sleep } from "../kube/backoff.ts";
import type { CertificateSource, ServerIdentity } from "./certificate-source.ts";

const lookEveryMs = 10_000;

export class FolderCertificates implements CertificateSource {
  readonly #folder: string;
  readonly #warn: (message: string) => void;
  readonly #listeners = new Set<(identity: ServerIdentity) => void>();
  identity: ServerIdentity | undefined;

  constructor(folder: string, warn: (message: string) => void) {
    this.#folder = folder;
    this.#warn = warn;
  }

  onChange(listener: (identity: ServerIdentity) => void): void {
    this.#listeners.add(listener);
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.refresh();
      await sleep(this.identity === undefined ? 1000 : lookEveryMs, signal);
    }
  }

  /** By content: the kubelet swaps a link, and times say little. */
  refresh(): void {
    let identity: ServerIdentity;
    try {
      const read = (name: string): string => readFileSync(join(this.#folder, name), "utf8");
      identity = { certificate: read("tls.crt"), key: read("tls.key"), trust: read("ca.crt") };
    } catch (error) {
      this.#warn(`certificates: ${error instanceof Error ? error.message : String(error)}`);
      return;
    }
    if (JSON.stringify(identity) === JSON.stringify(this.identity)) return;
    this.identity = identity;
    for (const listener of this.#listeners) listener(identity);
  }
}
