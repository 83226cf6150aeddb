/*
 * Where a pod's processes are on this node: by the cgroup paths that every kubelet makes, whose names hold the pod's uid
 * (`pod<uid>` with dashes, or with underscores below systemd), on cgroup v1 and v2 alike.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface PodProcess {
  readonly pid: number;
  /** `net:[4026531840]` */
  readonly netns: string;
  /** `mnt:[4026531840]` */
  readonly mounts: string;
}

const podInPath =
  /pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=[./]|$)/m;

/** The uid in a process's `/proc/PID/cgroup`, as the API has it; undefined outside pods. */
export function podOf(cgroup: string): string | undefined {
  return podInPath.exec(cgroup)?.[1]?.replaceAll("_", "-");
}

/** By pod, all processes that are in a network namespace of their pod's own. */
export function podProcesses(proc = "/proc"): ReadonlyMap<string, readonly PodProcess[]> {
  const found = new Map<string, PodProcess[]>();
  const own = readlinkSync(`${proc}/self/ns/net`);
  for (const entry of readdirSync(proc)) {
    if (!/^[0-9]+$/.test(entry)) continue;
    try {
      const uid = podOf(readFileSync(`${proc}/${entry}/cgroup`, "utf8"));
      if (uid === undefined) continue;
      const netns = readlinkSync(`${proc}/${entry}/ns/net`);
      if (netns === own) continue; // hostNetwork, or a runtime on its way into the namespace
      const process = { pid: Number(entry), netns, mounts: readlinkSync(`${proc}/${entry}/ns/mnt`) };
      const known = found.get(uid);
      if (known === undefined) found.set(uid, [process]);
      else known.push(process);
    } catch {
      // it has ended
    }
  }
  return found;
}

/**
 * The host's end of the wire of a pod: the interface whose number the pod's says is its peer's, and which says the same
 * of it. For veth pairs, as bridge, ptp, Calico, Cilium, Flannel and most others make them.
 */
export function hostInterfaceOf(pid: number, roots = { proc: "/proc", sys: "/sys" }): string | undefined {
  const inside = `${roots.proc}/${pid}/root/sys/class/net`;
  const names = readdirSync(inside).filter((name) => name !== "lo");
  // A runtime on its way into the container still has the host's /sys: that is another namespace's.
  if (names.toSorted().join() !== ownInterfaces(pid, roots.proc).toSorted().join()) return undefined;
  for (const name of names) {
    const index = readNumber(`${inside}/${name}/ifindex`);
    const peer = readNumber(`${inside}/${name}/iflink`);
    if (index === undefined || peer === undefined || index === peer) continue;
    for (const host of readdirSync(`${roots.sys}/class/net`)) {
      const folder = `${roots.sys}/class/net/${host}`;
      if (readNumber(`${folder}/ifindex`) === peer && readNumber(`${folder}/iflink`) === index) return host;
    }
  }
  return undefined;
}

/** Of the network namespace that the process is in, wherever its files come from. */
function ownInterfaces(pid: number, proc: string): string[] {
  const lines = readFileSync(`${proc}/${pid}/net/dev`, "utf8").split("\n").slice(2);
  return lines.flatMap((line) => /^\s*([^:\s]+):/.exec(line)?.[1] ?? []).filter((name) => name !== "lo");
}

function readNumber(path: string): number | undefined {
  try {
    const number = Number(readFileSync(path, "utf8"));
    return Number.isInteger(number) ? number : undefined;
  } catch {
    return undefined;
  }
}
