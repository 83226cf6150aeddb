/* The clients of `clients/`, and how to start each. */
import { join } from "node:path";
import { goProgram } from "./go.ts";
import { debianPackages, npmPackages, pythonPackages } from "./packages.ts";
import { root } from "./world.ts";

export interface Stack {
  readonly name: string;
  /** The command up to the arguments that clients/README.md describes. */
  readonly command: readonly string[];
  /** One connection for all requests to one URL. `mostly`: its pool may open another when it is asked too quickly. */
  readonly keepsAlive: boolean | "mostly";
  /** Suites (their names) that it does not offer. */
  readonly lacks?: readonly string[];
  /** What prints its version. */
  readonly version?: readonly string[];
  /** The file by which its TLS code is looked for, if not that of the command. */
  readonly executable?: string;
}

const client = (file: string) => join(root, "test/support/clients", file);

/** A Node of clients/package.json, which set-up installs. */
const node = (major: 16 | 20 | 22) => join(root, `test/support/clients/node_modules/node${major}/bin/node`);

const told = (executable: string) => ({ version: [executable, "--version"], executable });

export const stacks: readonly Stack[] = [
  { name: "curl", command: ["sh", client("curl.sh")], keepsAlive: true, ...told("curl") },
  { name: "python", command: ["python3", client("python.py")], keepsAlive: true, ...told("python3") },
  {
    name: "python asyncio (memory BIO)",
    command: ["python3", client("python-memory-bio.py")],
    keepsAlive: true,
    ...told("python3"),
  },
  { name: "ruby", command: ["ruby", client("ruby.rb")], keepsAlive: true, ...told("ruby") },
  { name: "php curl", command: ["php", client("php-curl.php")], keepsAlive: true, ...told("php") },
  { name: "php streams", command: ["php", client("php-streams.php")], keepsAlive: false, ...told("php") },
  { name: "perl", command: ["perl", client("perl.pl")], keepsAlive: true, ...told("perl") },
  {
    name: "curl (libcurl-gnutls)",
    command: ["/usr/bin/python3", client("pycurl-gnutls.py")],
    keepsAlive: true,
    version: ["/usr/bin/python3", "-c", "import pycurl; print(pycurl.version.split('libcurl/')[1])"],
    executable: "wget",
  },
  { name: "node 16 (OpenSSL 1.1.1)", command: [node(16), client("node.mjs")], keepsAlive: true, ...told(node(16)) },
  { name: "node 20 (OpenSSL 3.0)", command: [node(20), client("node.mjs")], keepsAlive: true, ...told(node(20)) },
  { name: "node 22 (OpenSSL 3.5)", command: [node(22), client("node.mjs")], keepsAlive: true, ...told(node(22)) },
  {
    name: "node that runs the tests",
    command: [process.execPath, client("node.mjs")],
    keepsAlive: true,
    ...told(process.execPath),
  },
];

/** Those that speak HTTP/2. HEADER in the environment names the header that carries the secret. */
export const http2Stacks: readonly Stack[] = [
  { name: "curl (nghttp2)", command: ["sh", client("curl-http2.sh")], keepsAlive: true, ...told("curl") },
  { name: "python httpx (h2)", command: ["/usr/bin/python3", client("httpx-http2.py")], keepsAlive: true },
  {
    name: "node 16 http2 (OpenSSL 1.1.1)",
    command: [node(16), client("node-http2.mjs")],
    keepsAlive: true,
    ...told(node(16)),
  },
  {
    name: "node http2 that runs the tests",
    command: [process.execPath, client("node-http2.mjs")],
    keepsAlive: true,
    ...told(process.execPath),
  },
];

/**
 * A client of wheels.py: an HTTP library from PyPI with a TLS library of its own. Under rustls: AWS-LC (pyreqwest), ring
 * (httpr). BoringSSL of 2026 (curl_cffi, with symbols) and of 2025 (rnet). AWS-LC under s2n (awscrt, with symbols).
 */
export function wheelStack(name: "pyreqwest" | "httpr" | "curl_cffi" | "rnet" | "awscrt"): Stack {
  const python = join(pythonPackages(`wheels-${name}`, client(`wheels/${name}.txt`)), "bin/python");
  const keepsAlive = name === "curl_cffi" || name === "awscrt" ? true : "mostly";
  return { name, command: [python, client("wheels/wheels.py"), name], keepsAlive };
}

/** gRPC of Go, of Python (C++, with BoringSSL inside) and of Node.js. HEADER as above, in small letters. */
export function grpcStacks(): readonly Stack[] {
  const python = join(pythonPackages("grpc-python", client("grpc/requirements.txt")), "bin/python");
  const go = goProgram({ program: "grpc-go", version: "1.26.8", stripped: true });
  return [
    { name: "gRPC-Go", command: [go], keepsAlive: true },
    { name: "grpcio", command: [python, client("grpc/grpcio.py")], keepsAlive: true },
    {
      name: "grpc-js",
      command: [process.execPath, join(npmPackages("grpc-node", client("grpc")), "grpc-js.mjs")],
      keepsAlive: true,
      ...told(process.execPath),
    },
  ];
}

/** Executables without symbols: BoringSSL in Bun, rustls over AWS-LC in Deno. */
export function runtimeStack(name: "bun" | "deno"): Stack {
  const folder = npmPackages("runtimes", client("runtimes"));
  const programs = {
    bun: ["@oven/bun-linux-x64/bin/bun"],
    deno: ["@deno/linux-x64-glibc/deno", "run", "-A"],
  };
  const [program = "", ...args] = programs[name];
  const command = [join(folder, "node_modules", program), ...args, join(folder, `${name}.mjs`)];
  return { name, command, keepsAlive: name === "bun" ? true : "mostly" };
}

/** A browser, with BoringSSL inside. HEADER as above. */
export function chromiumStack(): Stack {
  debianPackages(["chromium"]);
  const executable = "/usr/lib/chromium/chromium";
  return {
    name: "chromium",
    command: [process.execPath, client("chromium.mjs")],
    keepsAlive: "mostly",
    version: [executable, "--version"],
    executable,
  };
}

/** The command of a stack's client for these arguments. */
export function clientCommand(
  stack: Stack,
  args: { ca: string; requests: number; big?: number; names: readonly string[]; urls: readonly string[] },
): string[] {
  const { ca, requests, big = 0, names, urls } = args;
  return [...stack.command, ca, String(requests), String(big), names.join(" "), ...urls];
}
