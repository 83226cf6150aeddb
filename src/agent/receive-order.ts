/*
 * The order in which the host's end of a veth hands on a connection's segments.
 *
 * A veth puts each packet into the backlog of the CPU that sends it. One connection sends from several: from the one
 * that the process writes on, and from those on which acknowledgements open the window. Their backlogs run side by side,
 * so segments overtake each other. The wire side passes nothing after a gap (a record that it has not seen could stand
 * there), so each segment that has been overtaken costs a retransmission of all that was under way: thousands of them in
 * a bulk upload. Receive packet steering chooses the CPU by the connection instead; TCP sends under its socket's lock,
 * so one backlog keeps the order in which the segments were made.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const interfaces = "/sys/class/net";

/**
 * Steers what the interface receives by connection, over all CPUs that are online, unless somebody has set that up
 * already. Returns what puts it back.
 * @throws Error of the file system: no such interface in the namespace that /sys shows, or /sys is read-only
 */
export function keepOrder(ifindex: number, cpus = onlineCpus()): () => void {
  const queues = join(interfaces, nameOf(ifindex), "queues");
  const changed: string[] = [];
  for (const queue of readdirSync(queues).filter((name) => name.startsWith("rx-"))) {
    const path = join(queues, queue, "rps_cpus");
    if (/[1-9a-f]/.test(readFileSync(path, "utf8"))) continue;
    writeFileSync(path, cpuMask(cpus));
    changed.push(path);
  }
  return () => {
    for (const path of changed) {
      try {
        writeFileSync(path, "0");
      } catch {
        // the interface has gone
      }
    }
  };
}

function nameOf(ifindex: number): string {
  for (const name of readdirSync(interfaces)) {
    try {
      if (Number(readFileSync(join(interfaces, name, "ifindex"), "utf8")) === ifindex) return name;
    } catch {
      // bonding_masters is a file, and interfaces go
    }
  }
  throw new Error(`there is no interface ${ifindex} in ${interfaces}`);
}

function onlineCpus(): number[] {
  return cpuList(readFileSync("/sys/devices/system/cpu/online", "utf8"));
}

/** `0-3,8` as numbers. */
export function cpuList(text: string): number[] {
  return text
    .trim()
    .split(",")
    .flatMap((range) => {
      const [first = 0, last = first] = range.split("-").map(Number);
      return Array.from({ length: last - first + 1 }, (_, index) => first + index);
    });
}

/** As the kernel reads a CPU mask: hexadecimal, a comma between groups of 32 bits, the highest first. */
export function cpuMask(cpus: readonly number[]): string {
  const mask = cpus.reduce((sum, cpu) => sum | (1n << BigInt(cpu)), 0n).toString(16);
  const groups: string[] = [];
  for (let end = mask.length; end > 0; end -= 8) groups.unshift(mask.slice(Math.max(0, end - 8), end));
  return groups.join(",");
}
