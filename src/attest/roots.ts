import { readFileSync, statSync } from "node:fs";
import { createSecureContext, rootCertificates } from "node:tls";
import type { SecureContext } from "node:tls";

/** Where distributions keep their roots: Debian and Alpine, Fedora, SUSE, others. */
const usualFiles = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

const contextsMax = 16;

/**
 * Trust roots. The system's file where there is one, and only that: a root that an administrator has removed must not
 * come back by another way. The roots that Node carries are used on systems that have none.
 */
export class Roots {
  readonly #files: readonly string[];
  readonly #contexts = new Map<string, SecureContext>();
  #system: { readonly version: string; readonly pem: readonly string[] } | undefined;

  /** @param files in order of preference */
  constructor(files: readonly string[] = usualFiles) {
    this.#files = files;
  }

  /** A context that trusts the system's roots and these. Made once for each set; the file is looked at each time. */
  context(extra: readonly string[]): SecureContext {
    const { version, pem } = this.#current();
    const key = JSON.stringify([version, ...extra]);
    const context = this.#contexts.get(key) ?? createSecureContext({ ca: [...pem, ...extra], minVersion: "TLSv1.2" });
    this.#contexts.delete(key);
    this.#contexts.set(key, context);
    const oldest = this.#contexts.keys().next();
    if (this.#contexts.size > contextsMax && oldest.done !== true) this.#contexts.delete(oldest.value);
    return context;
  }

  #current(): { readonly version: string; readonly pem: readonly string[] } {
    for (const file of this.#files) {
      const stat = statSync(file, { throwIfNoEntry: false });
      if (stat === undefined) continue;
      const version = `${file} ${stat.ino} ${stat.size} ${stat.mtimeMs}`;
      if (this.#system?.version !== version) this.#system = { version, pem: [readFileSync(file, "utf8")] };
      return this.#system;
    }
    this.#system = { version: "bundled", pem: rootCertificates };
    return this.#system;
  }
}
