/* The six TLS suites that are substituted in, each on a listener of its own, so that the client need not choose. */

export interface Suite {
  readonly name: string;
  readonly version: "TLSv1.2" | "TLSv1.3";
  /** OpenSSL's name, for a server that allows this one alone. */
  readonly cipher: string;
  /** As audit records write it. */
  readonly audit: { readonly version: "1.2" | "1.3"; readonly cipher: string };
}

const suite = (version: "1.2" | "1.3", cipher: string, openssl: string): Suite => ({
  name: `${version} ${cipher}`,
  version: `TLSv${version}`,
  cipher: openssl,
  audit: { version, cipher },
});

export const suites: readonly Suite[] = [
  suite("1.3", "aes-128-gcm", "TLS_AES_128_GCM_SHA256"),
  suite("1.3", "aes-256-gcm", "TLS_AES_256_GCM_SHA384"),
  suite("1.3", "chacha20-poly1305", "TLS_CHACHA20_POLY1305_SHA256"),
  suite("1.2", "aes-128-gcm", "ECDHE-ECDSA-AES128-GCM-SHA256"),
  suite("1.2", "aes-256-gcm", "ECDHE-ECDSA-AES256-GCM-SHA384"),
  suite("1.2", "chacha20-poly1305", "ECDHE-ECDSA-CHACHA20-POLY1305"),
];
