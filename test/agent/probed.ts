/* Whether a probe is in place: by the breakpoint that a process finds in its code. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, copyFileSync, openSync, readFileSync, readSync } from "node:fs";
import { discover, installedCrypto } from "../../src/hooks/index.ts";

const breakpoint = 0xcc;

/** A copy of libcrypto that no other process of this host has mapped, and the first function of it that is hooked. */
export interface ProbeTarget {
  readonly path: string;
  readonly program: string;
  readonly offset: number;
}

export function copyOfLibcrypto(path: string): ProbeTarget {
  const [file] = installedCrypto();
  if (file === undefined) throw new Error("no libcrypto is installed");
  copyFileSync(file.hostPath, path);
  const hook = discover(path).stacks[0]?.hooks[0];
  if (hook === undefined) throw new Error(`${file.path} has no functions to hook`);
  return { path, program: hook.program, offset: hook.fileOffset };
}

/** A process that has mapped the file, as a library. */
export class Mapper {
  readonly #child: ChildProcess;
  readonly #target: ProbeTarget;

  private constructor(child: ChildProcess, target: ProbeTarget) {
    this.#child = child;
    this.#target = target;
  }

  static async start(target: ProbeTarget): Promise<Mapper> {
    const child = spawn("sh", ["-c", "echo up; read line"], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, LD_PRELOAD: target.path },
    });
    if (child.stdout === null) throw new Error("no pipe");
    await once(child.stdout, "data");
    return new Mapper(child, target);
  }

  /** Whether the function's first byte is a breakpoint now. */
  get probed(): boolean {
    const { pid } = this.#child;
    const { path, offset } = this.#target;
    for (const line of readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")) {
      const [range = "", mode = "", at = ""] = line.split(/\s+/);
      const [start = "", end = ""] = range.split("-");
      const base = Number.parseInt(at, 16);
      const length = Number.parseInt(end, 16) - Number.parseInt(start, 16);
      if (!line.endsWith(path) || !mode.includes("x") || offset < base || offset >= base + length) continue;
      const byte = Buffer.alloc(1);
      const memory = openSync(`/proc/${pid}/mem`, "r");
      readSync(memory, byte, 0, 1, Number.parseInt(start, 16) + offset - base);
      closeSync(memory);
      return byte[0] === breakpoint;
    }
    throw new Error(`process ${pid} has not mapped ${path}`);
  }

  async close(): Promise<void> {
    const ended = once(this.#child, "exit");
    this.#child.stdin?.end();
    await ended;
  }
}
