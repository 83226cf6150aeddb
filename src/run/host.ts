/*
 * Whether this host can run Kloak: what is needed, what is there, and what to do about the difference.
 */
import { accessSync, constants, existsSync, readFileSync, statfsSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { objectNames } from "../dataplane/index.ts";
import { KloakError } from "../errors.ts";
import { buildFile } from "./native.ts";
import { searchPath } from "./program.ts";

/** What the host is like; tests make up their own. */
export interface HostFacts {
  readonly platform: string;
  readonly machine: string;
  readonly kernel: string;
  /** Type information of the kernel. */
  readonly btf: boolean;
  /** Effective capabilities of this process, a bit each. */
  readonly capabilities: bigint;
  readonly root: boolean;
  readonly programs: ReadonlySet<string>;
  /** Mounted file systems by type. */
  readonly bpffs: boolean;
  readonly cgroup2: boolean;
  /** Names of CONFIG_ options that are off; undefined where the kernel does not tell. */
  readonly config: ReadonlyMap<string, boolean> | undefined;
  readonly built: ReadonlySet<string>;
  readonly lockdown: string;
}

export interface Check {
  readonly name: string;
  readonly status: "ok" | "missing" | "warning";
  /** What is there. */
  readonly found: string;
  /** What to do; undefined if all is well. */
  readonly remedy: string | undefined;
}

/** Who asks: a command is given its own network and perhaps another user, an agent finds workloads that have theirs. */
export type Purpose = "run" | "agent";

/** What a command alone needs. */
const runOnly: ReadonlySet<string> = new Set(["CAP_SETGID", "CAP_SETUID", "VETH", "NF_TABLES_INET", "NFT_MASQ"]);

/** capability.h: bit, name, what for. */
const capabilities = [
  [1, "CAP_DAC_OVERRIDE", "state in /run/kloak"],
  [5, "CAP_KILL", "ending the command"],
  [6, "CAP_SETGID", "running the command as another user"],
  [7, "CAP_SETUID", "running the command as another user"],
  [12, "CAP_NET_ADMIN", "the command's network"],
  [19, "CAP_SYS_PTRACE", "looking at the command's files"],
  [21, "CAP_SYS_ADMIN", "namespaces and holding programs until they are hooked"],
  [38, "CAP_PERFMON", "uprobes"],
  [39, "CAP_BPF", "the data plane"],
] as const;

const programs = [
  ["ip", "iproute2"],
  ["nft", "nftables"],
  ["nsenter", "util-linux"],
  ["getent", "libc-bin"],
] as const;

const configOptions = [
  ["BPF_SYSCALL", "the data plane"],
  ["BPF_JIT", "a data plane fast enough"],
  ["UPROBE_EVENTS", "uprobes"],
  ["NET_NS", "network namespaces"],
  ["VETH", "the wire of a command"],
  ["NET_CLS_BPF", "filters on the wire"],
  ["NET_SCH_INGRESS", "filters on the wire"],
  ["FANOTIFY_ACCESS_PERMISSIONS", "holding programs until they are hooked"],
  ["NF_TABLES_INET", "NAT"],
  ["NFT_MASQ", "NAT"],
] as const;

const buildFiles = ["kloak.node", "kloak-launch", "kloak-gate"];
const objects = [...objectNames, "hook", "ledger"].map((name) => `bpf/${name}.bpf.o`);

/** Debian 12's, on which `npm run test:kernels` tries it. */
const oldestKernel = [6, 1] as const;

export function readFacts(): HostFacts {
  return {
    platform: process.platform,
    machine: process.arch,
    kernel: release(),
    btf: existsSync("/sys/kernel/btf/vmlinux"),
    capabilities: BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(read("/proc/self/status"))?.[1] ?? "0"}`),
    root: process.getuid?.() === 0,
    programs: new Set(programs.map(([name]) => name).filter(isOnPath)),
    bpffs: isType("/sys/fs/bpf", 0xcafe4a11),
    cgroup2: / - cgroup2 /.test(read("/proc/self/mountinfo")),
    config: kernelConfig(),
    built: new Set([...buildFiles, ...objects].filter((name) => existsSync(buildFile(name)))),
    lockdown: /\[(\w+)\]/.exec(read("/sys/kernel/security/lockdown"))?.[1] ?? "none",
  };
}

/** All checks, the needed ones before the others. */
export function checks(facts: HostFacts, purpose: Purpose = "run"): Check[] {
  return [
    systemCheck(facts),
    kernelCheck(facts),
    need(
      "type information (BTF)",
      facts.btf,
      "/sys/kernel/btf/vmlinux",
      "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian, Ubuntu, Fedora and RHEL kernels are)",
    ),
    lockdownCheck(facts),
    capabilityCheck(facts, purpose),
    ...configChecks(facts, purpose),
    ...(purpose === "agent" ? [] : programs).map(([name, where]) =>
      need(`program ${name}`, facts.programs.has(name), name, `install package ${where}`),
    ),
    need(
      "build",
      [...buildFiles, ...objects].every((name) => facts.built.has(name)),
      "complete",
      "run `npm run setup` in Kloak's directory",
    ),
    wish("BPF file system", facts.bpffs, "/sys/fs/bpf", "needed by `kloak agent` only: mount -t bpf bpf /sys/fs/bpf"),
    wish(
      "cgroup 2",
      facts.cgroup2,
      "mounted",
      "needed by the Kubernetes agent only: boot with systemd.unified_cgroup_hierarchy=1",
    ),
  ];
}

/** @throws KloakError naming the first thing that is needed and missing */
export function requireHost(facts: HostFacts, purpose: Purpose = "run"): void {
  const missing = checks(facts, purpose).filter(({ status }) => status === "missing");
  const [first] = missing;
  if (first === undefined) return;
  const more = missing.length > 1 ? ` (and ${missing.length - 1} more: \`kloak doctor\` lists them)` : "";
  throw new KloakError(
    "host-unfit",
    `This host cannot run Kloak yet: ${first.name}: ${first.found}; ${first.remedy}${more}.`,
  );
}

function systemCheck({ platform, machine }: HostFacts): Check {
  const fits = platform === "linux" && machine === "x64";
  const status = fits ? "ok" : "missing";
  return { name: "system", status, found: `${platform}, ${machine}`, remedy: fits ? undefined : "use Linux on x86-64" };
}

function kernelCheck({ kernel }: HostFacts): Check {
  const [major = 0, minor = 0] = kernel.split(".").map((part) => Number.parseInt(part, 10));
  const fits = major > oldestKernel[0] || (major === oldestKernel[0] && minor >= oldestKernel[1]);
  const remedy = fits ? undefined : `use Linux ${oldestKernel.join(".")} or later`;
  return { name: "kernel", status: fits ? "ok" : "missing", found: kernel, remedy };
}

function lockdownCheck({ lockdown }: HostFacts): Check {
  const fits = lockdown !== "confidentiality";
  const remedy = fits ? undefined : "boot with lockdown=integrity: in mode confidentiality BPF may not read memory";
  return { name: "lockdown", status: fits ? "ok" : "missing", found: lockdown, remedy };
}

const isNeeded = (name: string, purpose: Purpose): boolean => purpose === "run" || !runOnly.has(name);

function capabilityCheck({ capabilities: held, root }: HostFacts, purpose: Purpose): Check {
  const missing = capabilities.filter(([bit, name]) => isNeeded(name, purpose) && ((held >> BigInt(bit)) & 1n) === 0n);
  if (missing.length === 0) return { name: "capabilities", status: "ok", found: "all", remedy: undefined };
  const remedy = `${root ? confined : "run it as root (sudo)"}, or with ${missing.map(([, name, use]) => `${name} (${use})`).join(", ")}`;
  return { name: "capabilities", status: "missing", found: `${missing.length} missing`, remedy };
}

/** A root that lacks them is confined: by a container, or by the `kloak run` that it is itself a command of. */
const confined = "run it outside of the container, or of the other `kloak run`, that it is in";

function configChecks({ config }: HostFacts, purpose: Purpose): Check[] {
  if (config === undefined) {
    const found = "not told by this kernel (/proc/config.gz, /boot)";
    return [{ name: "kernel configuration", status: "ok", found, remedy: undefined }];
  }
  const missing = configOptions.filter(([name]) => isNeeded(name, purpose) && config.get(name) !== true);
  if (missing.length === 0)
    return [{ name: "kernel configuration", status: "ok", found: "complete", remedy: undefined }];
  return missing.map(([name, use]) =>
    need(`CONFIG_${name}`, false, "set", `use a kernel that has it: it is for ${use}`),
  );
}

function need(name: string, there: boolean, found: string, remedy: string): Check {
  return there
    ? { name, status: "ok", found, remedy: undefined }
    : { name, status: "missing", found: "not there", remedy };
}

function wish(name: string, there: boolean, found: string, remedy: string): Check {
  const check = need(name, there, found, remedy);
  return check.status === "missing" ? { ...check, status: "warning" } : check;
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function isOnPath(name: string): boolean {
  return searchPath.split(":").some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function isType(path: string, magic: number): boolean {
  try {
    return statfsSync(path).type === magic;
  } catch {
    return false;
  }
}

/** What the kernel was built with, where it says so; an option that is built as a module counts. */
function kernelConfig(): ReadonlyMap<string, boolean> | undefined {
  const text = compressed("/proc/config.gz") ?? (read(`/boot/config-${release()}`) || undefined);
  if (text === undefined) return undefined;
  return new Map([...text.matchAll(/^CONFIG_(\w+)=[ym]$/gm)].map(([, name = ""]) => [name, true]));
}

function compressed(path: string): string | undefined {
  try {
    return gunzipSync(readFileSync(path)).toString("utf8");
  } catch {
    return undefined;
  }
}
