/** What a server shows, PEM. */
export interface ServerIdentity {
  readonly certificate: string;
  readonly key: string;
  /** Authorities by which clients of the server, and the server its clients, can be verified. */
  readonly trust: string;
}

/** Where a server's certificate comes from: made here, or put into a folder by cert-manager or by hand. */
export interface CertificateSource {
  /** Undefined until it is there. */
  readonly identity: ServerIdentity | undefined;
  /** Called with each new one, and never with the first if that was there already. */
  onChange(listener: (identity: ServerIdentity) => void): void;
  run(signal: AbortSignal): Promise<void>;
}
