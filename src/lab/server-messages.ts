/* What the laboratory's server process and its owner say to each other. */
import type { Certificate } from "./certificates.ts";

export interface ListenerPlan {
  /** Unique; requests name it. */
  readonly name: string;
  readonly certificate: Certificate;
  readonly version?: "TLSv1.2" | "TLSv1.3";
  readonly cipher?: string;
  /**
   * `http` parses requests and answers each, `http2` does so in HTTP/2 alone; `raw` keeps every byte and answers each
   * empty line. Default `http`.
   */
  readonly kind?: "http" | "http2" | "raw";
  /** HTTP/2: SETTINGS_HEADER_TABLE_SIZE, 4096 unless given. */
  readonly headerTableSize?: number;
  /** Port to listen on; any free one if not given. */
  readonly port?: number;
  /** Handshakes wait for ever unless the client offers this ALPN protocol. */
  readonly onlyAlpn?: string;
  /** `http`, `http2`: the JSON to answer with, by path without its query; "ok" to all others. */
  readonly answers?: Readonly<Record<string, unknown>>;
  /** `http`, `http2`: server-sent events to answer with, a few at a time, by path without its query. */
  readonly events?: Readonly<Record<string, readonly unknown[]>>;
}

/** One HTTP request as it arrived; with a `raw` listener, all that one connection sent, in `body`. */
export interface ServedRequest {
  readonly listener: string;
  /** Numbers the connections of this server, from 1. */
  readonly connection: number;
  readonly remoteAddress: string;
  readonly serverName: string | null;
  readonly version: string;
  readonly cipher: string;
  readonly method: string;
  readonly path: string;
  /** In order, names as sent. */
  readonly headers: readonly (readonly [string, string])[];
  readonly bodyLength: number;
  readonly bodySha256: string;
  /** Latin-1; null when longer than 64 KiB. */
  readonly body: string | null;
}

export type ToServer =
  | { readonly type: "listen"; readonly listeners: readonly ListenerPlan[] }
  /** Answers the requests for `/hold`, which wait until then. */
  | { readonly type: "release" }
  | { readonly type: "flush"; readonly ticket: number; readonly closed?: string };

export type FromServer =
  | { readonly type: "ready" }
  | { readonly type: "listening"; readonly ports: Readonly<Record<string, number>> }
  | { readonly type: "request"; readonly request: ServedRequest }
  | { readonly type: "fault"; readonly listener: string; readonly message: string }
  | { readonly type: "flushed"; readonly ticket: number };
