/*
 * What becomes of each file that a workload executes or opens: hooked, or said to be unprotected.
 */
import { readFileSync, readlinkSync, statSync } from "node:fs";
import { basename } from "node:path";
import { coverageOf, ElfError, hasJavaAgent, libraries, procText, processFiles } from "../hooks/index.ts";
import type { Answer, HeldFile } from "./gate.ts";
import type { HookedFile, HookedFiles } from "./hooked-files.ts";

export interface ProtectionListener {
  unprotected(pid: number, command: string, stack: string | null, why: string): void;
  detail(message: string): void;
}

/** What a process executes, as far as it matters for files that it opens later. */
interface Program {
  readonly command: string;
  /** Libraries whose TLS code is not heard, of a program that has other TLS code that is. */
  readonly spared: ReadonlySet<string>;
}

const programsMax = 4096;
const toldMax = 4096;
const mountsMax = 4096;
/** Arguments and environment together have a quarter of the stack (execve(2)), 2 MB as a rule. */
const environmentMax = 2 << 20;

export class Protection {
  readonly #files: HookedFiles;
  readonly #listener: ProtectionListener;
  readonly #programs = new Map<number, Program>();
  readonly #told = new Set<string>();
  /** Keys of mapped files whose libraries have been looked at, and of libraries beside code that is heard. */
  readonly #met = new Set<string>();
  readonly #company = new Set<string>();
  readonly #mounts = new Set<string>();

  constructor(files: HookedFiles, listener: ProtectionListener) {
    this.#files = files;
    this.#listener = listener;
  }

  /** Whether the process is in a mount namespace that was not noted before. */
  noteMounts(pid: number): boolean {
    try {
      const name = readlinkSync(`/proc/${pid}/ns/mnt`);
      if (this.#mounts.has(name)) return false;
      remember(this.#mounts, name, mountsMax);
      return true;
    } catch {
      return false; // it has ended
    }
  }

  /** Hooks the file, and of an executable the libraries that it needs. */
  opened(file: HeldFile): Answer {
    return file.purpose === "exec" ? this.#executed(file) : this.#mapped(file);
  }

  /** Hooks what a process has mapped. What it had encrypted by then was not heard. */
  running(pid: number): void {
    let files: readonly HookedFile[];
    try {
      const mapped = processFiles(pid).flatMap((reference) => this.#hook(reference.path, reference.name, pid) ?? []);
      // One that has just started maps its libraries one by one: it is judged by all that it needs.
      const needed = this.#needed(nameOf(`/proc/${pid}/exe`), pid);
      files = [...new Map([...mapped, ...needed].map((file) => [file.key, file])).values()];
    } catch {
      return; // it has ended
    }
    const command = commandOf(pid);
    for (const { name, fresh } of files)
      if (fresh) this.#listener.unprotected(pid, command, null, lateText(name, command));
    this.#judge(pid, command, files);
  }

  #executed({ path, pid }: HeldFile): Answer {
    const name = nameOf(path);
    const own = this.#hook(path, name, pid);
    if (own === undefined) return "ask-again";
    const needed = this.#needed(name, pid);
    const files = [own, ...needed.filter(({ key }) => key !== own.key)];
    // The interpreter of a program (ld.so) is held like it, just after it: what is known of the program stays.
    if (files.length === 1 && own.tls === "none") return "known";
    this.#judge(pid, basename(name), files);
    // What there is to say of a program is said for each process. And a library may be another at the next exec, while
    // the kernel would only see that the program is the same.
    return files.some((file) => file.tls === "unknown" || (file !== own && file.heard)) ? "ask-again" : "known";
  }

  #needed(executable: string, pid: number): HookedFile[] {
    try {
      const root = `/proc/${pid}/root`;
      const environment = { LD_LIBRARY_PATH: environmentOf(pid, "LD_LIBRARY_PATH") };
      const { files } = libraries(executable, { root, environment });
      return files.flatMap(({ hostPath, path }) => this.#hook(hostPath, path, pid) ?? []);
    } catch (error) {
      this.#listener.detail(`libraries of ${executable}: ${error instanceof Error ? error.message : String(error)}`);
      return [];
    }
  }

  #mapped({ path, pid }: HeldFile): Answer {
    const name = nameOf(path);
    const file = this.#hook(path, name, pid);
    if (file === undefined) return "ask-again";
    this.#meet(file, name, pid);
    if (file.tls !== "unknown") return "known";
    // Its exec was not held again: the kernel was told that its file is known.
    if (!this.#programs.has(pid)) this.running(pid);
    const program = this.#programs.get(pid);
    const command = program?.command ?? commandOf(pid);
    if (this.#company.has(file.key) || program?.spared.has(file.key) === true)
      this.#listener.detail(unheardText(file, command));
    else this.#tell(pid, command, file);
    return "ask-again";
  }

  /** A library that brings TLS code that is heard may bring other that it has no use for: libcurl and its GnuTLS. */
  #meet(file: HookedFile, name: string, pid: number): void {
    if (this.#met.has(file.key)) return;
    remember(this.#met, file.key, toldMax);
    const needed = this.#needed(name, pid);
    if (!needed.some(({ heard }) => heard)) return;
    for (const { tls, key } of needed) {
      if (tls === "unknown" && key !== file.key) remember(this.#company, key, toldMax);
    }
  }

  /** A program of which some TLS code is heard may well have libraries that it never uses for TLS. */
  #judge(pid: number, command: string, files: readonly HookedFile[]): void {
    const unknown = files.filter(({ tls }) => tls === "unknown");
    const coverage = coverageOf(
      files.map(({ tls, heard }) => ({ tls: tls === "hooked" ? "known" : tls, stacks: heard ? heardStack : [] })),
    );
    const spared = new Set(
      coverage === "partial" ? unknown.filter((file) => file !== files[0]).map(({ key }) => key) : [],
    );
    this.#programs.delete(pid);
    this.#programs.set(pid, { command, spared });
    const oldest = this.#programs.keys().next();
    if (this.#programs.size > programsMax && oldest.done !== true) this.#programs.delete(oldest.value);
    for (const file of unknown) {
      if (spared.has(file.key)) this.#listener.detail(unheardText(file, command));
      else this.#tell(pid, command, file);
    }
  }

  /** Once for each process and file. */
  #tell(pid: number, command: string, file: HookedFile): void {
    const key = `${pid} ${command} ${file.key}`;
    if (this.#told.has(key)) return;
    remember(this.#told, key, toldMax);
    if (file.stack === "java" && hasJavaAgent(pid)) {
      this.#listener.detail(`${command}: what ${file.name} seals is heard by Kloak's agent in it.`);
      return;
    }
    this.#listener.unprotected(pid, command, file.stack, unheardText(file, command));
  }

  #hook(path: string, name: string, pid: number): HookedFile | undefined {
    try {
      return this.#files.hook({ path, name }, () => netnsOf(pid));
    } catch (error) {
      if (!(error instanceof ElfError)) throw error;
      this.#listener.detail(error.message);
      return undefined;
    }
  }
}

const heardStack = [{}] as never;

function unheardText(file: HookedFile, command: string): string {
  const next = "Placeholders that it sends go out as they are";
  const remedy = file.stack === "java" ? ". Kloak's agent in the JVM changes that: `kloak run --java`" : "";
  const build = file.buildId === undefined ? "" : `; build id ${file.buildId}`;
  return `${command}: TLS code of ${file.name} is not hooked (${file.why}${build}). ${next}${remedy}.`;
}

function lateText(name: string, command: string): string {
  return `${command} had started before the TLS code of ${name} was hooked. What it sends on connections from before then goes out as it is.`;
}

/** Inode of its network namespace; 0 when it has ended. */
function netnsOf(pid: number): number {
  try {
    return statSync(`/proc/${pid}/ns/net`).ino;
  } catch {
    return 0;
  }
}

function remember(set: Set<string>, item: string, limit: number): void {
  const oldest = set.keys().next();
  if (set.size >= limit && oldest.done !== true) set.delete(oldest.value);
  set.add(item);
}

function nameOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return path;
  }
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return "?";
  }
}

/** Of the process before its exec: what it hands on is not known yet, but seldom another. */
function environmentOf(pid: number, name: string): string | undefined {
  try {
    const entries = procText(`/proc/${pid}/environ`, environmentMax).split("\0");
    return entries.find((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1);
  } catch {
    return undefined;
  }
}
