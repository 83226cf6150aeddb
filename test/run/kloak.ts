/* Runs `kloak` as a user does, and looks at what it leaves. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { program } from "../../src/run/program.ts";
import { hostInterface, list, tableName } from "../../src/run/state.ts";
import { processesIn } from "../../src/run/tidy.ts";

export const kloakFile = join(import.meta.dirname, "../../bin/kloak");

export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface StartOptions {
  readonly input?: string | Buffer;
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** A process group, and session, of its own. */
  readonly detached?: boolean;
  /** What stands before `kloak` in the argument vector. */
  readonly within?: readonly string[];
}

/** A `kloak` that runs. */
export class Running {
  readonly process: ChildProcess;
  readonly ended: Promise<Outcome>;
  stdout = "";
  stderr = "";
  readonly #changed = new Set<() => void>();

  constructor(args: readonly string[], { input, env = {}, within = [], ...options }: StartOptions = {}) {
    const [file = "", ...rest] = [...within, kloakFile, ...args];
    this.process = spawn(file, rest, {
      ...options,
      env: { ...cleanEnvironment(), ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.process.stdout?.setEncoding("utf8").on("data", (text: string) => this.#add("stdout", text));
    this.process.stderr?.setEncoding("utf8").on("data", (text: string) => this.#add("stderr", text));
    this.process.stdin?.on("error", () => undefined); // the command need not read
    if (input !== undefined) this.process.stdin?.end(input);
    this.ended = new Promise((resolve, reject) => {
      this.process.on("error", reject);
      this.process.on("close", (status, signal) => {
        this.#notify();
        resolve({ status, signal, stdout: this.stdout, stderr: this.stderr });
      });
    });
  }

  get pid(): number {
    return this.process.pid ?? 0;
  }

  /** Its record under /run/kloak. */
  get record() {
    return list().find((record) => record.kloak.pid === this.pid);
  }

  /** Waits until the command has written this to its standard output. */
  async says(text: string): Promise<void> {
    await until(
      `"${text}" on standard output; there is ${JSON.stringify(this.stdout + this.stderr)}`,
      () => this.stdout.includes(text),
      this.#changed,
    );
  }

  #add(stream: "stdout" | "stderr", text: string): void {
    this[stream] += text;
    this.#notify();
  }

  #notify(): void {
    for (const changed of this.#changed) changed();
  }
}

/** Runs it to its end. */
export function kloak(args: readonly string[], options: StartOptions = {}): Promise<Outcome> {
  return new Running(args, { input: "", ...options }).ended;
}

/** As a shell's, without what says who called sudo. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(SUDO_|KLOAK_|NODE_)/.test(name)));
}

const deadlineMs = 20_000;

/** Waits until `condition` holds, looking again at each of `hints` and every few milliseconds. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  hints?: Set<() => void>,
): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${deadlineMs / 1000} s in vain for ${what}`);
    let wake = (): void => undefined;
    const hint = new Promise<void>((resolve) => {
      wake = resolve;
    });
    hints?.add(wake);
    await Promise.race([hint, delay(20)]);
    hints?.delete(wake);
  }
}

/** What there is in the system of the run with this id. */
export async function traces(id: string, netns: number | undefined): Promise<string[]> {
  const found: string[] = [];
  if (existsSync(`/sys/class/net/${hostInterface(id)}`)) found.push(`interface ${hostInterface(id)}`);
  const tables = await program("nft", ["list", "tables"]);
  if (tables.split("\n").includes(`table inet ${tableName(id)}`)) found.push(`table ${tableName(id)}`);
  if (existsSync(`/run/kloak/${id}.json`) || existsSync(`/run/kloak/${id}.d`))
    found.push(`files of ${id} in /run/kloak`);
  for (const pid of netns === undefined ? [] : processesIn(netns)) found.push(`process ${pid}`);
  return found;
}

/** The settings that runs change, as they are now. */
export function settings(): string {
  const paths = [
    "ipv4/conf/eth0/forwarding",
    "ipv6/conf/eth0/force_forwarding",
    "ipv6/conf/all/forwarding",
    "ipv4/ip_forward",
  ];
  return paths
    .map(
      (path) =>
        `${path}=${existsSync(`/proc/sys/net/${path}`) ? readFileSync(`/proc/sys/net/${path}`, "utf8").trim() : "-"}`,
    )
    .join(" ");
}
