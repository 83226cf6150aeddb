/* The clients of `clients/`, and how to start each. */
import { existsSync } from "node:fs";
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

/** The system's Node, which Debian 12 has at version 18 or 20; the one that runs the tests is 22 or later. */
function systemNode(): string {
  const path = ["/usr/bin/node", "/usr/bin/nodejs", "/usr/local/bin/node"].find((file) => existsSync(file));
  if (path === undefined) throw new Error("No Node in /usr/bin: install Debian's package nodejs.");
  return path;
}

export const stacks: readonly Stack[] = [
  { name: "curl", command: ["sh", client("curl.sh")], keepsAlive: true },
  { name: "python", command: ["python3", client("python.py")], keepsAlive: true },
  { name: "python asyncio (memory BIO)", command: ["python3", client("python-memory-bio.py")], keepsAlive: true },
  { name: "ruby", command: ["ruby", client("ruby.rb")], keepsAlive: true },
  { name: "php curl", command: ["php", client("php-curl.php")], keepsAlive: true },
  { name: "php streams", command: ["php", client("php-streams.php")], keepsAlive: false },
  { name: "perl", command: ["perl", client("perl.pl")], keepsAlive: true },
  { name: "node (system)", command: [systemNode(), client("node.mjs")], keepsAlive: true },
  { name: "node (ours)", command: [process.execPath, client("node.mjs")], keepsAlive: true },
];

/** The command of a stack's client for these arguments. */
export function clientCommand(
  stack: Stack,
  args: { ca: string; requests: number; big?: number; names: readonly string[]; urls: readonly string[] },
): string[] {
  const { ca, requests, big = 0, names, urls } = args;
  return [...stack.command, ca, String(requests), String(big), names.join(" "), ...urls];
}
