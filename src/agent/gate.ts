/*
 * The gate that holds a workload's execve and its opening of libraries until their TLS code is hooked: build/kloak-gate
 * (native/gate.c) and what it asks.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { constants } from "node:os";
import { KloakError } from "../errors.ts";
import { buildFile } from "../run/native.ts";

export interface HeldFile {
  /** Opens that very file. */
  readonly path: string;
  /** The process that wants it. */
  readonly pid: number;
  /** Of an executable both come, `exec` first. */
  readonly purpose: "exec" | "open";
}

/** `known`: the file need not be asked about again until it is modified. */
export type Answer = "known" | "ask-again";

export interface GateOptions {
  readonly asked: (file: HeldFile) => Answer | Promise<Answer>;
  /** No answer came in time, and the file was let through. */
  readonly late: (file: HeldFile) => void;
  readonly failed: (error: unknown) => void;
}

/** How long an execve waits for an answer, in milliseconds: longer than a busy host takes for a large new file. */
const waitMs = 5000;

export class Gate {
  readonly #process: ChildProcess;
  readonly #control: Socket;
  readonly #options: GateOptions;
  readonly #ready: { resolve: () => void; reject: (error: Error) => void }[] = [];
  #partial = "";
  #closing = false;

  private constructor(child: ChildProcess, options: GateOptions) {
    this.#process = child;
    this.#control = child.stdio[3] as Socket;
    this.#options = options;
    this.#control.setEncoding("utf8");
    this.#control.on("data", (text: string) => this.#read(text));
    this.#control.on("error", () => undefined);
    child.on("error", (error) => this.#ended(error.message));
    child.on("exit", (status, signal) => this.#ended(`it ended with ${signal ?? status}`));
  }

  /** Resolves when the gate stands, with nothing to guard yet. */
  static async open(options: GateOptions): Promise<Gate> {
    const child = spawn(buildFile("kloak-gate"), [String(waitMs)], {
      stdio: ["ignore", "ignore", "ignore", "pipe"],
      env: {},
    });
    const gate = new Gate(child, options);
    await gate.#answer();
    return gate;
  }

  /** Processes in this network namespace are held; all others pass at once. */
  addWorkload(netnsInode: number): void {
    this.#control.write(`workload ${netnsInode}\n`);
  }

  removeWorkload(netnsInode: number): void {
    this.#control.write(`workload-gone ${netnsInode}\n`);
  }

  /**
   * Guards execve on all file systems that process `pid` can execute from, and its opening of libraries through its own
   * mounts. Its mount namespace must not be the host's: opening a file would cost everybody.
   */
  async guard(pid: number): Promise<void> {
    const mounts = parseMounts(readFileSync(`/proc/${pid}/mountinfo`, "utf8")).filter(mayHoldCode);
    const devices = new Map(mounts.map((mount) => [mount.device, mount]));
    for (const { path } of devices.values()) this.#control.write(`filesystem /proc/${pid}/root${path}\n`);
    for (const { path } of mounts) this.#control.write(`mount /proc/${pid}/root${path}\n`);
    this.#control.write("sync\n");
    await this.#answer();
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    const { exitCode, signalCode } = this.#process;
    if (exitCode !== null || signalCode !== null) return;
    const exited = new Promise<void>((resolve) => this.#process.once("exit", () => resolve()));
    this.#control.destroy();
    await exited;
  }

  #answer(): Promise<void> {
    return new Promise((resolve, reject) => this.#ready.push({ resolve, reject }));
  }

  #read(text: string): void {
    const lines = (this.#partial + text).split("\n");
    this.#partial = lines.pop() ?? "";
    for (const line of lines) this.#hear(line.split(" "));
  }

  #hear([word, first = "", second = "", third = ""]: string[]): void {
    if (word === "ready") this.#ready.shift()?.resolve();
    else if (word === "failed") this.#refused(first, Number(second));
    else if (word === "late") this.#options.late(this.#file(first, second, third));
    else if (word === "asked") void this.#ask(first, this.#file(first, second, third));
  }

  #file(id: string, pid: string, purpose: string): HeldFile {
    const path = `/proc/${this.#process.pid}/fd/${id}`;
    return { path, pid: Number(pid), purpose: purpose === "exec" ? "exec" : "open" };
  }

  async #ask(id: string, file: HeldFile): Promise<void> {
    let answer: Answer = "ask-again";
    try {
      answer = await this.#options.asked(file);
    } catch (error) {
      this.#options.failed(error);
    }
    this.#control.write(answer === "known" ? `allow ${id} known\n` : `allow ${id}\n`);
  }

  #refused(step: string, errno: number): void {
    const name = Object.entries(constants.errno).find(([, number]) => number === errno)?.[0] ?? String(errno);
    const error = new KloakError(
      "gate-refused",
      `Programs cannot be held until they are hooked (fanotify ${step}: ${name}). \`kloak doctor\` says what this host lacks.`,
    );
    // A mount that takes no mark is one that is not guarded; without fanotify at all there is no gate.
    if (step === "mark") this.#options.failed(error);
    else this.#ready.shift()?.reject(error);
  }

  #ended(why: string): void {
    if (this.#closing) return;
    const error = new KloakError(
      "gate-ended",
      `kloak-gate is gone: ${why}. New programs are hooked only after they have started.`,
    );
    for (const { reject } of this.#ready.splice(0)) reject(error);
    this.#options.failed(error);
    this.#closing = true;
  }
}

interface Mount {
  readonly device: string;
  readonly path: string;
  readonly type: string;
  readonly options: readonly string[];
}

/** /proc/PID/mountinfo (proc(5)). */
export function parseMounts(text: string): Mount[] {
  return text.split("\n").flatMap((line) => {
    const [left = "", right = ""] = line.split(" - ");
    const [, , device, , path, options] = left.split(" ");
    const [type] = right.split(" ");
    if (device === undefined || path === undefined || options === undefined || type === undefined) return [];
    const plain = path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    return [{ device, path: plain, type, options: options.split(",") }];
  });
}

const withoutPrograms = new Set([
  ...["proc", "sysfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "mqueue", "bpf", "tracefs", "debugfs", "securityfs"],
  ...["pstore", "efivarfs", "configfs", "hugetlbfs", "binfmt_misc", "autofs", "rpc_pipefs", "nsfs", "fusectl"],
]);

function mayHoldCode({ type, options, path }: Mount): boolean {
  return !withoutPrograms.has(type) && !options.includes("noexec") && !path.includes("\n");
}
