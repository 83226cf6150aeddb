/* Runs `kloak` as a user does, and looks at what it leaves. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { program } from "../../src/run/program.ts";
import { hostInterface, listEverywhere, tableName } from "../../src/run/state.ts";
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

const live = new Set<ChildProcess>();
after(() => {
  for (const child of live) child.kill("SIGTERM"); // of a test that has failed
});

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
    live.add(this.process);
    this.process.on("exit", () => live.delete(this.process));
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
    return listEverywhere().find((record) => record.kloak.pid === this.pid);
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

/** A hang's, on a machine that is busy with other things. */
const deadlineMs = 60_000;

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

/** The argument vector that runs another on the host of a run: a namespace, or this machine. */
export type OnHost = (argv: readonly string[]) => string[];

const here: OnHost = (argv) => [...argv];

function output(onHost: OnHost, argv: readonly string[]): Promise<string> {
  const [file = "", ...args] = onHost(argv);
  return program(file, args);
}

/** What there is in the system of the run with this id. */
export async function traces(id: string, netns: number | undefined, onHost: OnHost = here): Promise<string[]> {
  const found: string[] = [];
  const [links, tables] = await Promise.all([
    output(onHost, ["ip", "-o", "link", "show"]),
    output(onHost, ["nft", "list", "tables"]),
  ]);
  if (links.includes(` ${hostInterface(id)}@`)) found.push(`interface ${hostInterface(id)}`);
  if (tables.split("\n").includes(`table inet ${tableName(id)}`)) found.push(`table ${tableName(id)}`);
  if (existsSync(`/run/kloak/${id}.json`) || existsSync(`/run/kloak/${id}.d`))
    found.push(`files of ${id} in /run/kloak`);
  for (const pid of netns === undefined ? [] : processesIn(netns)) found.push(`process ${pid}`);
  return found;
}

/** The settings that runs change, as they are now; those of the runs' own interfaces come and go with them. */
export async function settings(onHost: OnHost): Promise<string> {
  const files = ["ipv4/conf/*/forwarding", "ipv6/conf/*/*forwarding", "ipv6/conf/*/accept_ra"];
  const text = await output(onHost, ["sh", "-c", `cd /proc/sys/net && grep -H . ${files.join(" ")}`]);
  return text
    .split("\n")
    .filter((line) => !line.includes("/kloak"))
    .join("\n");
}
