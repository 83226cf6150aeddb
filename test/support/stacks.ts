/* The clients of `clients/`, and how to start each. */
import { join } from "node:path";
import { root } from "./world.ts";

export interface Stack {
  readonly name: string;
  /** The command up to the arguments that clients/README.md describes. */
  readonly command: readonly string[];
  /** One connection for all requests to one URL. */
  readonly keepsAlive: boolean;
}

const client = (file: string) => join(root, "test/support/clients", file);

/** A Node of clients/package.json, which set-up installs. */
const node = (major: 16 | 20 | 22) => join(root, `test/support/clients/node_modules/node${major}/bin/node`);

export const stacks: readonly Stack[] = [
  { name: "curl", command: ["sh", client("curl.sh")], keepsAlive: true },
  { name: "python", command: ["python3", client("python.py")], keepsAlive: true },
  { name: "python asyncio (memory BIO)", command: ["python3", client("python-memory-bio.py")], keepsAlive: true },
  { name: "ruby", command: ["ruby", client("ruby.rb")], keepsAlive: true },
  { name: "php curl", command: ["php", client("php-curl.php")], keepsAlive: true },
  { name: "php streams", command: ["php", client("php-streams.php")], keepsAlive: false },
  { name: "perl", command: ["perl", client("perl.pl")], keepsAlive: true },
  {
    name: "curl (libcurl-gnutls)",
    command: ["/usr/bin/python3", client("pycurl-gnutls.py")],
    keepsAlive: true,
  },
  { name: "node 16 (OpenSSL 1.1.1)", command: [node(16), client("node.mjs")], keepsAlive: true },
  { name: "node 20 (OpenSSL 3.0)", command: [node(20), client("node.mjs")], keepsAlive: true },
  { name: "node 22 (OpenSSL 3.5)", command: [node(22), client("node.mjs")], keepsAlive: true },
  { name: "node that runs the tests", command: [process.execPath, client("node.mjs")], keepsAlive: true },
];

/** Those that speak HTTP/2. HEADER in the environment names the header that carries the secret. */
export const http2Stacks: readonly Stack[] = [
  { name: "curl (nghttp2)", command: ["sh", client("curl-http2.sh")], keepsAlive: true },
  { name: "python httpx (h2)", command: ["/usr/bin/python3", client("httpx-http2.py")], keepsAlive: true },
  { name: "node 16 http2 (OpenSSL 1.1.1)", command: [node(16), client("node-http2.mjs")], keepsAlive: true },
  { name: "node http2 that runs the tests", command: [process.execPath, client("node-http2.mjs")], keepsAlive: true },
];

/** The command of a stack's client for these arguments. */
export function clientCommand(
  stack: Stack,
  args: { ca: string; requests: number; big?: number; names: readonly string[]; urls: readonly string[] },
): string[] {
  const { ca, requests, big = 0, names, urls } = args;
  return [...stack.command, ca, String(requests), String(big), names.join(" "), ...urls];
}
