/* Where the API server is and who we are to it. */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { KloakError } from "../errors.ts";

export interface Connection {
  /** `https://host:port`, with a path if the API lies below one. */
  readonly server: URL;
  /** PEM; undefined: the system's roots. */
  readonly ca: string | undefined;
  /** Value of the Authorization header now; tokens change. */
  authorization(): string | undefined | Promise<string | undefined>;
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Of a client certificate, PEM. */
  readonly certificate?: { readonly cert: string; readonly key: string };
  /** How the server's certificate is looked at, where its user wants it otherwise. */
  readonly verification?: { readonly servername?: string; readonly rejectUnauthorized?: boolean };
}

/** Where the kubelet puts a pod's own credentials. */
export const serviceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount";

/**
 * A pod's own connection. Read here and not by a client library, which would take more memory than the rest of an agent.
 * @throws KloakError outside a pod
 */
export function inClusterConnection(
  environment: NodeJS.ProcessEnv = process.env,
  folder = serviceAccountFolder,
): Connection {
  const host = environment["KUBERNETES_SERVICE_HOST"];
  const port = environment["KUBERNETES_SERVICE_PORT"] ?? "443";
  if (host === undefined || host === "") {
    throw new KloakError(
      "not-in-cluster",
      "This is not a pod of a cluster (KUBERNETES_SERVICE_HOST is not set): name a kubeconfig with KUBECONFIG.",
    );
  }
  const token = new FileText(join(folder, "token"));
  return {
    server: new URL(`https://${host.includes(":") ? `[${host}]` : host}:${port}`),
    ca: readFileSync(join(folder, "ca.crt"), "utf8"),
    authorization: () => `Bearer ${token.read().trim()}`,
  };
}

/** A file's text, read again when the file has changed: the kubelet replaces tokens and certificates. */
export class FileText {
  readonly path: string;
  #state = "";
  #text = "";

  constructor(path: string) {
    this.path = path;
  }

  /** @throws KloakError */
  read(): string {
    try {
      const { mtimeNs, ino, size } = statSync(this.path, { bigint: true });
      const state = `${mtimeNs} ${ino} ${size}`;
      if (state !== this.#state) {
        this.#text = readFileSync(this.path, "utf8");
        this.#state = state;
      }
      return this.#text;
    } catch (cause) {
      throw new KloakError("file-unreadable", `${this.path} cannot be read: ${(cause as Error).message}`, { cause });
    }
  }
}
