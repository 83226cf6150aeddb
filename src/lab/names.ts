/*
 * Makes host names known to one command and its children alone: a hosts file, bound over /etc/hosts in a mount
 * namespace of theirs.
 */
import { writeFileSync } from "node:fs";

/** Writes a hosts file with the usual loopback lines and `names`, each at all its addresses. */
export function writeHostsFile(file: string, names: Readonly<Record<string, readonly string[]>>): void {
  const lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"];
  for (const [name, addresses] of Object.entries(names)) {
    for (const address of addresses) lines.push(`${address} ${name}`);
  }
  writeFileSync(file, `${lines.join("\n")}\n`);
}

/** The argument vector that runs `argv` with `hostsFile` as /etc/hosts, which a bare system may lack. Needs root. */
export function withHostsFile(hostsFile: string, argv: readonly string[]): string[] {
  const script = '[ -e /etc/hosts ] || : >/etc/hosts; mount --bind "$1" /etc/hosts && shift && exec "$@"';
  return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", hostsFile, ...argv];
}
