/*
 * The gate that holds a workload's execve and its opening of libraries until their TLS code is hooked: build/kloak-gate
 * (native/gate.c) and what it asks.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { constants } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { KloakError } from "../errors.ts";
import { buildFile, errorCode } from "../run/native.ts";

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

/** A file that was let through before anybody had looked at it. */
export interface Passed {
  readonly pid: number;
  readonly purpose: HeldFile["purpose"];
  /** `late`: no answer came in time. `crowded`: its workload had too many held at once. */
  readonly why: "late" | "crowded";
}

export interface GateOptions {
  readonly asked: (file: HeldFile) => Answer | Promise<Answer>;
  readonly passed: (passed: Passed) => void;
  /** As many more were let through while nobody was there to be told. */
  readonly missed: (count: number) => void;
  /** A watched file has been written to; `DEVICE-INODE`. */
  readonly modified: (place: string) => void;
  readonly failed: (error: unknown) => void;
  /** A gate that outlives us: where it listens, and where the probes of files are pinned. */
  readonly lasting?: { readonly socket: string; readonly links: string };
}

/**
 * How long a file waits for an answer, in milliseconds: longer than a busy host takes for a large new file. What is let
 * through is not hooked when it starts.
 */
const waitMs = 5000;
const startDeadlineMs = 10_000;
/** A gate that takes longer to answer holds up everybody's programs: it is ended, and the kernel lets them through. */
const answerDeadlineMs = 5000;

export class Gate {
  readonly #control: Socket;
  readonly #options: GateOptions;
  /** Ends with us. */
  readonly #child: ChildProcess | undefined;
  readonly #ready: { resolve: () => void; reject: (error: Error) => void }[] = [];
  #pid = 0;
  #partial = "";
  #closing = false;

  private constructor(control: Socket, child: ChildProcess | undefined, options: GateOptions) {
    this.#control = control;
    this.#child = child;
    this.#options = options;
    control.setEncoding("utf8");
    control.on("data", (text: string) => this.#read(text));
    control.on("error", () => undefined);
    control.on("close", () => this.#ended());
  }

  /** Resolves when the gate stands. One that outlives its agents asks about everything again. */
  static async open(options: GateOptions): Promise<Gate> {
    const gate = await (options.lasting === undefined ? Gate.#start(options) : Gate.#join(options, options.lasting));
    gate.#control.write("forget\n");
    await gate.sync();
    return gate;
  }

  static #start(options: GateOptions): Gate {
    const stdio = ["ignore", "ignore", "ignore", "pipe"] as const;
    const child = spawn(buildFile("kloak-gate"), [String(waitMs)], { stdio: [...stdio], env: {} });
    child.on("error", options.failed);
    return new Gate(child.stdio[3] as Socket, child, options);
  }

  static async #join(options: GateOptions, { socket, links }: { socket: string; links: string }): Promise<Gate> {
    const standing = await dial(socket);
    if (standing !== undefined) return new Gate(standing, undefined, options);
    rmSync(socket, { force: true });
    const child = spawn(buildFile("kloak-gate"), [String(waitMs), socket, links], {
      stdio: "ignore",
      env: {},
      detached: true,
    });
    child.on("error", options.failed);
    child.unref();
    for (const deadline = performance.now() + startDeadlineMs; performance.now() < deadline; await delay(5)) {
      const control = await dial(socket);
      if (control !== undefined) return new Gate(control, undefined, options);
      if (child.exitCode !== null) break;
    }
    throw new KloakError("gate-refused", "kloak-gate did not start. `kloak doctor` says what this host lacks.");
  }

  /** The process that holds files. */
  get pid(): number {
    return this.#pid;
  }

  /** Resolves when all that was asked for is done. */
  async sync(): Promise<void> {
    const answered = this.#answer();
    this.#control.write("sync\n");
    // Twice: it may be us who were stopped, and its answer lies there unread.
    let late = setTimeout(() => {
      late = setTimeout(() => this.#stuck(), answerDeadlineMs / 5);
    }, answerDeadlineMs);
    try {
      await answered;
    } finally {
      clearTimeout(late);
    }
  }

  /** Says when the file has been written to, once. */
  watch(path: string): void {
    if (!path.includes("\n")) this.#control.write(`watch ${path}\n`);
  }

  /** Every execve of the file is asked about, whoever does it. @param path of a container runtime */
  addRuntime(path: string): void {
    if (!path.includes("\n")) this.#control.write(`runtime ${path}\n`);
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
    await this.sync();
  }

  /** Guards execve on the file systems of our own mount namespace, and nothing else of it. */
  async guardHost(): Promise<void> {
    const mounts = parseMounts(readFileSync("/proc/self/mountinfo", "utf8")).filter(mayHoldCode);
    for (const { path } of new Map(mounts.map((mount) => [mount.device, mount])).values())
      this.#control.write(`filesystem ${path}\n`);
    await this.sync();
  }

  /** A gate that outlives us goes on. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    const child = this.#child;
    const exited =
      child === undefined || child.exitCode !== null || child.signalCode !== null ? undefined : once(child, "exit");
    this.#control.destroy();
    await exited;
  }

  /** Ends a gate that would outlive us. */
  async leave(): Promise<void> {
    this.#closing = true;
    const closed = once(this.#control, "close");
    this.#control.write("leave\n");
    await closed;
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
    if (word === "gate") this.#pid = Number(first);
    else if (word === "ready") this.#ready.shift()?.resolve();
    else if (word === "failed") this.#refused(first, Number(second));
    else if (word === "late" || word === "crowded")
      this.#options.passed({ pid: Number(first), purpose: purposeOf(second), why: word });
    else if (word === "missed") this.#options.missed(Number(first));
    else if (word === "modified") this.#modified(first);
    else if (word === "asked") {
      const path = `/proc/${this.#pid}/fd/${first}`;
      void this.#ask(first, { path, pid: Number(second), purpose: purposeOf(third) });
    }
  }

  /** Answered when it is done: should we die before, the gate takes the probes away itself. */
  #modified(place: string): void {
    this.#options.modified(place);
    this.#control.write(`unhooked ${place}\n`);
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

  #stuck(): void {
    try {
      if (this.#pid !== 0) process.kill(this.#pid, "SIGKILL");
    } catch {
      // it has ended
    }
  }

  #ended(): void {
    const error = new KloakError(
      "gate-ended",
      "kloak-gate is gone. New programs are hooked only after they have started.",
    );
    for (const { reject } of this.#ready.splice(0)) reject(error);
    if (this.#closing) return;
    this.#closing = true;
    this.#options.failed(error);
  }
}

function purposeOf(word: string): HeldFile["purpose"] {
  return word === "exec" ? "exec" : "open";
}

async function dial(path: string): Promise<Socket | undefined> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
    return socket;
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ECONNREFUSED") return undefined;
    throw error;
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

/** Not FUSE: whoever serves it, a workload perhaps, could let us and the gate wait for ever for a byte of a file. */
function mayHoldCode({ type, options, path }: Mount): boolean {
  const plain = !withoutPrograms.has(type) && type !== "fuse" && !type.startsWith("fuse.");
  return plain && !options.includes("noexec") && !path.includes("\n");
}
