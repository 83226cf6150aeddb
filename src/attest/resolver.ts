import { lookup } from "node:dns/promises";

export interface Resolved {
  readonly address: string;
  /** Undefined: the source does not say. */
  readonly ttlSeconds?: number;
}

/** @throws if the name has no address, or none can be learned now */
export interface Resolver {
  resolve(name: string): Promise<readonly Resolved[]>;
}

/** As programs on this host resolve: getaddrinfo with /etc/hosts and all. It tells no time to live. */
export const systemResolver: Resolver = {
  resolve: (name) => lookup(name, { all: true, order: "verbatim" }),
};
