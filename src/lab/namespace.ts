/*
 * A network namespace of its own, joined to this one by a veth: the machine on the other side of the wire. Removed when
 * closed, when the process ends in any way that runs exit handlers, and by the next process that makes one otherwise.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { KloakError } from "../errors.ts";
import { runSync } from "./command.ts";

export interface Namespace {
  readonly name: string;
  /** The file that names it, for setns(2). */
  readonly path: string;
  /** Name of the veth's end in the caller's namespace. */
  readonly hostInterface: string;
  /** Name of the veth's end inside. */
  readonly interface: string;
  readonly ipv4: { readonly host: string; readonly inside: string };
  readonly ipv6: { readonly host: string; readonly inside: string };
  /** The argument vector that runs `argv` inside. */
  within(argv: readonly string[]): string[];
  close(): void;
}

const prefix = "kloak-lab-";
const open = new Set<Namespace>();
let count = 0;

/** Makes a namespace with loopback and a veth up, an IPv4 /30, an IPv6 /64 and default routes to the host. Needs root. */
export function createNamespace(): Namespace {
  if (count === 0) {
    sweep();
    process.on("exit", closeAll);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, endBySignal);
  }
  count += 1;
  const name = `${prefix}${process.pid}-${count}`;
  const hostInterface = `kl${process.pid}n${count}`;
  const net = freeSubnet();
  const namespace: Namespace = {
    name,
    path: `/run/netns/${name}`,
    hostInterface,
    interface: "eth0",
    ipv4: { host: `${net.ipv4}.${net.last + 1}`, inside: `${net.ipv4}.${net.last + 2}` },
    ipv6: { host: `${net.ipv6}::1`, inside: `${net.ipv6}::2` },
    within: (argv) => ["ip", "netns", "exec", name, ...argv],
    close() {
      if (!open.delete(namespace)) return;
      remove(name);
    },
  };
  open.add(namespace);
  try {
    const { ipv4, ipv6 } = namespace;
    runSync("ip", ["netns", "add", name]);
    runSync("ip", ["link", "add", hostInterface, "type", "veth", "peer", "name", "eth0", "netns", name]);
    const batch = [
      `addr add ${ipv4.host}/30 dev ${hostInterface}`,
      `addr add ${ipv6.host}/64 dev ${hostInterface} nodad`,
      `link set ${hostInterface} up`,
    ];
    const inside = [
      "link set lo up",
      `addr add ${ipv4.inside}/30 dev eth0`,
      `addr add ${ipv6.inside}/64 dev eth0 nodad`,
      "link set eth0 up",
      `route add default via ${ipv4.host}`,
      `-6 route add default via ${ipv6.host}`,
    ];
    for (const line of batch) runSync("ip", line.split(" "));
    for (const line of inside) runSync("ip", ["-n", name, ...line.split(" ")]);
    // What comes back from the other machine is routed on to a workload, as from any interface of a host that forwards.
    writeFileSync(`/proc/sys/net/ipv4/conf/${hostInterface}/forwarding`, "1");
    writeFileSync(`/proc/sys/net/ipv6/conf/${hostInterface}/forwarding`, "1");
    return namespace;
  } catch (error) {
    namespace.close();
    throw error;
  }
}

function remove(name: string): void {
  try {
    runSync("ip", ["netns", "del", name]); // the veth goes with it
  } catch (error) {
    process.exitCode = 1;
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  }
}

function closeAll(): void {
  for (const namespace of [...open]) namespace.close();
}

function endBySignal(signal: NodeJS.Signals): void {
  closeAll();
  process.kill(process.pid, signal);
}

/** Removes what a killed process has left: its number is in the name. */
function sweep(): void {
  for (const name of listNamespaces()) {
    const owner = Number(/^kloak-lab-(\d+)-\d+$/.exec(name)?.[1]);
    if (owner && owner !== process.pid && !isAlive(owner)) remove(name);
  }
}

function listNamespaces(): string[] {
  try {
    return readdirSync("/run/netns").filter((name) => name.startsWith(prefix));
  } catch {
    return []; // the directory is made with the first namespace
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/** A free part of 198.18.0.0/15, which RFC 2544 sets aside for tests between devices, and of a unique local prefix. */
function freeSubnet(): { ipv4: string; last: number; ipv6: string } {
  const taken = readFileSync("/proc/net/fib_trie", "utf8");
  for (let attempt = 0; attempt < 4096; attempt += 1) {
    const index = (process.pid * 8 + count + attempt * 61) % 0x8000;
    const ipv4 = `198.${18 + (index >> 14)}.${(index >> 6) & 255}`;
    const last = (index & 63) * 4;
    if (!taken.includes(` ${ipv4}.${last}/30 `) && !taken.includes(`-- ${ipv4}.${last + 1}\n`)) {
      return { ipv4, last, ipv6: `fd6b:6c6f:616b:${index.toString(16)}` };
    }
  }
  throw new KloakError(
    "no-free-subnet",
    "No free subnet in 198.18.0.0/15. Remove left-over interfaces whose names start with kl (ip link) and try again.",
  );
}
