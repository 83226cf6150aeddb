/*
 * The command's parent, build/kloak-launch (native/launch.c): started, told what to run, listened to. It holds the
 * namespaces, and outlives kloak's death to end the command.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { statSync } from "node:fs";
import { constants } from "node:os";
import type { Socket } from "node:net";
import { KloakError } from "../errors.ts";
import { buildFile } from "./native.ts";

export interface Identity {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

export interface LaunchPlan {
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly identity: Identity | undefined;
  /** Files that the command sees in place of others. */
  readonly covers: readonly { readonly file: string; readonly over: string }[];
  /** Signals that the command is to ignore, as kloak's caller did (nohup): bit N-1 for signal N. */
  readonly ignoredSignals: bigint;
  /** What the launcher executes last, should kloak die. */
  readonly tidy: readonly string[];
}

type Line =
  | { readonly kind: "ready" }
  | { readonly kind: "started"; readonly pid: number }
  | { readonly kind: "failed"; readonly step: string; readonly errno: number }
  | { readonly kind: "ended"; readonly status: number };

const startDeadlineMs = 20_000;

/** Errors of the command itself carry the exit status that a shell gives them. */
export class CommandError extends KloakError {
  readonly status: 126 | 127;

  constructor(status: 126 | 127, message: string) {
    super(status === 127 ? "command-not-found" : "command-not-executable", message);
    this.status = status;
  }
}

export class Launcher {
  readonly #process: ChildProcess;
  readonly #control: Socket;
  readonly #waiting: { resolve: (line: Line) => void; reject: (error: Error) => void }[] = [];
  readonly #lines: Line[] = [];
  readonly ended: Promise<number>;
  #gone = false;
  #partial = "";
  #end: (status: number) => void = () => undefined;

  private constructor(child: ChildProcess) {
    this.#process = child;
    this.#control = child.stdio[3] as Socket;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#control.setEncoding("utf8");
    this.#control.on("data", (text: string) => this.#read(text));
    this.#control.on("error", () => undefined); // its end is what counts
    child.on("error", (error) => this.#close(error));
    child.on("exit", (code, signal) =>
      this.#close(signal === null ? undefined : new Error(`killed by ${signal}`), code ?? killedStatus),
    );
  }

  /** Starts the launcher; resolves when it is in its namespaces. The standard streams are the command's. */
  static async start(): Promise<Launcher> {
    const file = buildFile("kloak-launch");
    const child = spawn(file, [], { stdio: ["inherit", "inherit", "inherit", "pipe"], env: {} });
    const launcher = new Launcher(child);
    const line = await launcher.#next(startDeadlineMs);
    if (line.kind === "failed") throw namespaceError(line.step, line.errno);
    return launcher;
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** The command's network namespace: a file for setns(2), and its inode. */
  get netns(): { readonly path: string; readonly inode: number } {
    const path = `/proc/${this.pid}/ns/net`;
    return { path, inode: statSync(path).ino };
  }

  /** The root directory as the command sees it. */
  get root(): string {
    return `/proc/${this.pid}/root`;
  }

  /**
   * Starts the command; resolves with its process number when it is executing.
   * @throws CommandError if it cannot be executed.
   */
  async run(plan: LaunchPlan): Promise<number> {
    this.#control.write(encodePlan(plan));
    const line = await this.#next();
    if (line.kind === "started") return line.pid;
    if (line.kind === "failed") throw startError(line.step, line.errno, plan);
    throw new KloakError(
      "launcher-confused",
      `kloak-launch said ${line.kind} before the command had started. Please report it.`,
    );
  }

  /** Hands a signal on that kloak got. */
  signal(number: number): void {
    if (!this.#gone) this.#control.write(`signal ${number}\n`);
  }

  /** Ends the launcher; before the command was started nothing of it is left. */
  async close(): Promise<void> {
    if (this.#gone) return;
    const exited = new Promise<void>((resolve) => this.#process.once("exit", () => resolve()));
    this.#control.destroy();
    await exited;
  }

  #read(text: string): void {
    const lines = (this.#partial + text).split("\n");
    this.#partial = lines.pop() ?? "";
    for (const line of lines) this.#hear(parseLine(line));
  }

  #hear(line: Line | undefined): void {
    if (line === undefined) return;
    if (line.kind === "ended") {
      this.#end(line.status);
    } else {
      const waiter = this.#waiting.shift();
      if (waiter === undefined) this.#lines.push(line);
      else waiter.resolve(line);
    }
  }

  /** @param status the command's, should the launcher's last line not have come: it exits with the same */
  #close(error: Error | undefined, status = killedStatus): void {
    this.#gone = true;
    const finish = () => {
      const gone = new KloakError(
        "launcher-ended",
        `kloak-launch ended before the command had started: ${error?.message ?? "no reason given"}.`,
      );
      for (const waiter of this.#waiting.splice(0)) waiter.reject(gone);
      this.#end(status);
    };
    // Lines may still be on their way; what it said comes first.
    if (this.#control.closed) finish();
    else this.#control.once("close", finish);
  }

  #next(deadlineMs?: number): Promise<Line> {
    const line = this.#lines.shift();
    if (line !== undefined) return Promise.resolve(line);
    return new Promise((resolve, reject) => {
      const timer = deadlineMs === undefined ? undefined : setTimeout(() => reject(silent(deadlineMs)), deadlineMs);
      this.#waiting.push({
        resolve: (line) => {
          clearTimeout(timer);
          resolve(line);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
    });
  }
}

/** What a shell gives for a child killed by SIGKILL: the launcher was, and the command dies with it. */
const killedStatus = 128 + constants.signals.SIGKILL;

function silent(deadlineMs: number): KloakError {
  return new KloakError("launcher-silent", `kloak-launch has not entered its namespaces for ${deadlineMs / 1000} s.`);
}

function parseLine(line: string): Line | undefined {
  const [word, first = "", second = ""] = line.split(" ");
  switch (word) {
    case "ready":
      return { kind: "ready" };
    case "started":
      return { kind: "started", pid: Number(first) };
    case "failed":
      return { kind: "failed", step: first, errno: Number(second) };
    case "exited":
      return { kind: "ended", status: Number(first) };
    case "killed":
      return { kind: "ended", status: 128 + Number(first) };
    default:
      return undefined;
  }
}

function encodePlan(plan: LaunchPlan): string {
  const { identity } = plan;
  const items = [
    ...plan.command.map((argument) => `arg=${argument}`),
    ...Object.entries(plan.environment).map(([name, value]) => `env=${name}=${value}`),
    ...plan.covers.map(({ file, over }) => `cover=${file}\t${over}`),
    ...plan.tidy.map((argument) => `tidy=${argument}`),
    ...(identity === undefined ? [] : [`uid=${identity.uid}`, `gid=${identity.gid}`]),
    ...(identity?.groups ?? []).map((group) => `group=${group}`),
    `ignore=${plan.ignoredSignals.toString(16)}`,
  ];
  return `${items.join("\0")}\0\0`;
}

function errnoName(errno: number): string {
  return Object.entries(constants.errno).find(([, number]) => number === errno)?.[0] ?? `error ${errno}`;
}

function namespaceError(step: string, errno: number): KloakError {
  const name = errnoName(errno);
  const next = name === "EPERM" ? "Run kloak as root" : "`kloak doctor` says what this host lacks";
  return new KloakError("no-namespaces", `The command's namespaces cannot be made (${step}: ${name}). ${next}.`);
}

function startError(step: string, errno: number, plan: LaunchPlan): KloakError {
  const [name = ""] = plan.command;
  const why = errnoName(errno);
  if (step === "exec" && (why === "ENOENT" || why === "ENOTDIR")) {
    const where = name.includes("/") ? "there is no such file" : "it is nowhere on PATH";
    return new CommandError(127, `Command ${JSON.stringify(name)} not found: ${where}.`);
  }
  if (step === "exec") {
    const next =
      why === "EACCES" ? "It is no executable file for the user that it is to run as" : `The kernel says ${why}`;
    return new CommandError(126, `Command ${JSON.stringify(name)} cannot be executed. ${next}.`);
  }
  return new KloakError("launch-failed", `The command cannot be started (${step}: ${why}).`);
}
