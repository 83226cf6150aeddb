/*
 * A virtual machine under software emulation, with a kernel of one's choice over this machine's own file system: nothing
 * is installed in it, and what it writes is gone with it. virtiofs, because Debian's cloud kernels have no 9p.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { cpio } from "./cpio.ts";
import { cache, type Kernel, moduleFiles } from "./kernel.ts";

export interface GuestOptions {
  readonly kernel: Kernel;
  /** A shell script, run as root in `/`; the files are this machine's. */
  readonly script: string;
  /** Each line that the script prints. */
  readonly print: (line: string) => void;
  /** Ends the machine. */
  readonly signal: AbortSignal;
  readonly memoryMiB?: number;
  readonly cpus?: number;
}

const virtiofsd = "/usr/lib/qemu/virtiofsd";

/** Resolves to the script's exit code. Throws with the console's last lines if the machine ends before the script does. */
export async function runInGuest(options: GuestOptions): Promise<number> {
  const { kernel, script, print, signal, memoryMiB = 3072, cpus = 2 } = options;
  mkdirSync(cache, { recursive: true });
  const folder = mkdtempSync(join(cache, ".guest-"));
  const ended = new AbortController();
  const both = AbortSignal.any([signal, ended.signal]);
  try {
    const socket = join(folder, "fs.sock");
    await serveFiles(socket, both);
    writeFileSync(join(folder, "script.sh"), script);
    writeFileSync(join(folder, "initrd"), initramfs(kernel, folder));
    const machine = spawn("qemu-system-x86_64", flags(folder, socket, kernel, memoryMiB, cpus), {
      stdio: ["ignore", "pipe", "inherit"],
      signal: both,
    });
    machine.on("error", () => undefined);
    let code: number | undefined;
    for await (const line of createInterface({ input: machine.stdout })) {
      const end = /^guest: ended with (\d+)$/.exec(line);
      if (end) code = Number(end[1]);
      else print(line);
    }
    signal.throwIfAborted();
    if (code === undefined) throw new Error(`the guest ended early:\n${tail(join(folder, "console"))}`);
    return code;
  } finally {
    ended.abort();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Resolves when it listens. */
async function serveFiles(socket: string, signal: AbortSignal): Promise<void> {
  // A root directory cannot be pivoted away from, which the default sandbox does.
  const server = spawn(virtiofsd, [`--socket-path=${socket}`, "-f", "-o", "source=/,cache=always,sandbox=chroot"], {
    stdio: ["ignore", "ignore", "pipe"],
    signal,
  });
  server.on("error", () => undefined);
  const said: string[] = [];
  for await (const line of createInterface({ input: server.stderr })) {
    said.push(line);
    if (!line.includes("Waiting for vhost-user socket connection")) continue;
    server.stderr.resume();
    return;
  }
  throw new Error(`${virtiofsd} did not start:\n${said.join("\n")}`);
}

function flags(folder: string, socket: string, kernel: Kernel, memoryMiB: number, cpus: number): string[] {
  const environment = `KLOAK_MODULES=${kernel.modules} KLOAK_COMMAND=${join(folder, "script.sh")}`;
  return [
    ...["-nodefaults", "-no-reboot", "-display", "none", "-machine", "q35", "-accel", "tcg,thread=multi"],
    // A plain CPU: what emulates AVX-512 and the like is slower than code that does without.
    ...["-cpu", "Westmere", "-smp", String(cpus), "-m", String(memoryMiB)],
    // The server of files reads and writes the guest's memory.
    ...["-object", `memory-backend-memfd,id=memory,size=${memoryMiB}M,share=on`, "-numa", "node,memdev=memory"],
    ...["-chardev", `socket,id=files,path=${socket}`, "-device", "vhost-user-fs-pci,chardev=files,tag=host"],
    ...["-serial", `file:${join(folder, "console")}`, "-serial", "stdio"],
    ...["-kernel", kernel.image, "-initrd", join(folder, "initrd")],
    ...["-append", `console=ttyS0 loglevel=5 panic=-1 oops=panic ${environment}`],
  ];
}

function initramfs(kernel: Kernel, folder: string): Buffer {
  const init = join(folder, "init");
  execFileSync("gcc", [
    "-static",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-o",
    init,
    join(import.meta.dirname, "init.c"),
  ]);
  const modules = moduleFiles(kernel, ["virtio_pci", "virtiofs", "overlay"]);
  return cpio([
    { path: "init", content: readFileSync(init), executable: true },
    ...modules.map((file, index) => ({
      path: `modules/${String(index).padStart(2, "0")}.ko`,
      content: readFileSync(file),
    })),
  ]);
}

function tail(path: string): string {
  return readFileSync(path, "utf8").split("\n").slice(-30).join("\n");
}
