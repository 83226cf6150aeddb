/* A client that says what it has done, and goes on when it is told to. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { Agent, ProtectedWorkload } from "../../src/agent/agent.ts";
import type { Namespace } from "../../src/lab/namespace.ts";

export class ToldClient {
  readonly #child: ChildProcess;
  #said = "";

  constructor([file = "", ...args]: readonly string[]) {
    this.#child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.#child.stdout?.on("data", (text: Buffer) => (this.#said += text.toString()));
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Tells it to go on, by a line, and waits for its word. */
  async does(line: string, word: string): Promise<void> {
    this.#child.stdin?.write(`${line}\n`);
    await this.says(word);
  }

  async says(word: string): Promise<void> {
    const ended = once(this.#child, "close").then(() => Promise.reject(new Error(`ended before it said ${word}`)));
    ended.catch(() => undefined); // only while it is awaited does it matter
    const { stdout } = this.#child;
    while (!this.#said.includes(word)) await Promise.race([once(stdout as NodeJS.EventEmitter, "data"), ended]);
    this.#said = "";
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, "close");
    this.#child.stdin?.end();
    await ended;
  }
}

/** A namespace as a workload of an agent in this process, its interface watched. */
export function protect(agent: Agent, namespace: Namespace): ProtectedWorkload {
  const workload = agent.addWorkload({
    netns: namespace.path,
    describe: (process) => ({ kind: "run", pid: process?.pid ?? null, command: process?.command ?? null }),
  });
  const ifindex = Number(readFileSync(`/sys/class/net/${namespace.hostInterface}/ifindex`, "utf8"));
  agent.attachInterface(workload, ifindex, { lease: true });
  return workload;
}
