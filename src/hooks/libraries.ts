import { posix } from "node:path";
import { readDynamic, readInterpreter } from "./elf/dynamic.ts";
import type { Dynamic } from "./elf/dynamic.ts";
import { isElf, readImage } from "./elf/image.ts";
import type { Machine } from "./elf/image.ts";
import { ElfError, FileSource } from "./elf/source.ts";
import type { Source } from "./elf/source.ts";
import { parseLibraryCache } from "./ld-cache.ts";
import type { LibraryCache } from "./ld-cache.ts";
import { resolveInRoot } from "./root-path.ts";
import { interpreterOf } from "./script.ts";
import { smallFile } from "./small-file.ts";

export interface LoadOptions {
  /** The process's root directory as seen from here: "/" or /proc/PID/root. */
  readonly root?: string;
  /** The process's working directory, inside its root. */
  readonly directory?: string;
  /** PATH, LD_LIBRARY_PATH and LD_PRELOAD count. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** Instead of the root's /etc/ld.so.cache. */
  readonly ldCache?: Buffer;
}

export interface LoadedFile {
  /** As the process names it. */
  readonly path: string;
  /** As it can be opened here. No part of it is a symbolic link. */
  readonly hostPath: string;
  readonly role: "script" | "executable" | "loader" | "library";
}

export interface LoadPlan {
  readonly files: readonly LoadedFile[];
  /** What was needed and not found, with who needs it. */
  readonly missing: readonly { readonly name: string; readonly neededBy: string }[];
}

const filesMax = 512;
const scriptsMax = 5;

const multiarch: Readonly<Record<Machine, string>> = { "x86-64": "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" };
const muslMachine: Readonly<Record<Machine, string>> = { "x86-64": "x86_64", arm64: "aarch64" };

/**
 * The files that execve(path) will map before the program's own code runs: interpreters of scripts, the executable, its
 * loader, the libraries it needs and those that they need. Libraries opened later (dlopen) are not among them.
 *
 * Where the loader would choose by processor features, all candidates are named: hooking one too many is harmless.
 */
export function libraries(path: string, options: LoadOptions = {}): LoadPlan {
  const walk = new Walk(options);
  walk.execute(path);
  return { files: [...walk.files.values()], missing: walk.missing };
}

interface Loaded {
  readonly path: string;
  readonly dynamic: Dynamic;
  /** RPATHs of it and of who loaded it. */
  readonly inherited: readonly string[];
}

class Walk {
  readonly files = new Map<string, LoadedFile>();
  readonly missing: { name: string; neededBy: string }[] = [];
  readonly #options: LoadOptions;
  readonly #root: string;
  readonly #queue: Loaded[] = [];
  #machine: Machine = "x86-64";
  #cache: LibraryCache | undefined;
  #musl = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#root = options.root ?? "/";
  }

  execute(path: string, scripts = 0): void {
    const file = this.#find(path);
    if (file === undefined) {
      this.missing.push({ name: path, neededBy: "execve" });
      return;
    }
    let next: readonly string[] = [];
    let loader: string | undefined;
    try {
      using source = new FileSource(file.host, { follow: false, name: file.inside });
      if (isElf(source)) {
        loader = this.#executable(source, file);
      } else {
        this.#add(file, "script");
        next = scripts < scriptsMax ? interpreterOf(source, this.#options.environment?.["PATH"]) : [];
      }
    } catch (error) {
      if (!(error instanceof ElfError)) throw error;
      this.missing.push({ name: path, neededBy: error.message });
      return;
    }
    for (const candidate of next) {
      if (this.#find(candidate) === undefined) continue;
      this.execute(candidate, scripts + 1);
      return;
    }
    if (next.length > 0) this.missing.push({ name: next[0] ?? "", neededBy: path });
    if (loader !== undefined) this.#closure(loader);
  }

  /** Reads the executable and gives the loader's path, "" if it is static. */
  #executable(source: Source, file: { inside: string; host: string }): string {
    const image = readImage(source);
    this.#machine = image.machine;
    this.#add(file, "executable");
    const interpreter = readInterpreter(image);
    const dynamic = readDynamic(image);
    if (dynamic !== undefined) this.#queue.push({ path: file.inside, dynamic, inherited: [] });
    return interpreter ?? "";
  }

  #closure(loader: string): void {
    this.#musl = /\/ld-musl-/.test(loader);
    if (loader !== "") {
      const found = this.#find(loader);
      if (found === undefined) this.missing.push({ name: loader, neededBy: "execve" });
      else this.#add(found, "loader");
      for (const name of this.#preloads()) this.#load(name, { path: "LD_PRELOAD", inherited: [] }, undefined);
    }
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      for (const name of next.dynamic.needed) this.#load(name, next, next.dynamic);
    }
  }

  #load(name: string, by: { path: string; inherited: readonly string[] }, dynamic: Dynamic | undefined): void {
    if (this.files.size >= filesMax) return;
    // An object with a RUNPATH is not searched by RPATH (ld.so(8)).
    const own = dynamic?.runpath === undefined ? expand(dynamic?.rpath, by.path, this.#machine) : [];
    const inherited = [...own, ...by.inherited];
    const rpaths = dynamic?.runpath === undefined ? inherited : [];
    let found = false;
    for (const candidate of this.#candidates(name, by.path, rpaths, dynamic?.runpath)) {
      const file = this.#find(candidate);
      if (file === undefined) continue;
      if (this.files.has(file.inside)) return;
      if (!this.#library(file, inherited)) continue;
      found = true;
      // All variants of one place in the cache; otherwise the first is what the loader takes.
      if (!(this.#cache?.get(name)?.includes(candidate) ?? false)) break;
    }
    if (!found) this.missing.push({ name, neededBy: by.path });
  }

  #library(file: { inside: string; host: string }, inherited: readonly string[]): boolean {
    try {
      using source = new FileSource(file.host, { follow: false, name: file.inside });
      const image = readImage(source);
      if (image.machine !== this.#machine) return false;
      this.#add(file, "library");
      const dynamic = readDynamic(image);
      if (dynamic !== undefined) this.#queue.push({ path: file.inside, dynamic, inherited });
      return true;
    } catch (error) {
      if (!(error instanceof ElfError)) throw error;
      return false;
    }
  }

  #candidates(name: string, by: string, rpaths: readonly string[], runpath: string | undefined): string[] {
    if (name.includes("/")) return [this.#absolute(expandTokens(name, by, this.#machine))];
    const environment = expand(this.#options.environment?.["LD_LIBRARY_PATH"]?.replaceAll(";", ":"), by, this.#machine);
    const directories = [...rpaths, ...environment, ...expand(runpath, by, this.#machine)];
    const before = directories.map((directory) => this.#absolute(posix.join(directory, name)));
    if (this.#musl) return [...before, ...this.#muslDirectories().map((directory) => posix.join(directory, name))];
    this.#cache ??= parseLibraryCache(this.#options.ldCache ?? this.#text("/etc/ld.so.cache"), this.#machine);
    const defaults = ["/lib", "/usr/lib"].flatMap((base) => [
      posix.join(base, multiarch[this.#machine], name),
      posix.join(`${base}64`, name),
      posix.join(base, name),
    ]);
    return [...before, ...(this.#cache.get(name) ?? []), ...defaults];
  }

  #muslDirectories(): string[] {
    const configured = this.#text(`/etc/ld-musl-${muslMachine[this.#machine]}.path`).toString("utf8");
    const directories = configured.split(/[:\n]/).filter((directory) => directory.startsWith("/"));
    return directories.length > 0 ? directories : ["/lib", "/usr/local/lib", "/usr/lib"];
  }

  #preloads(): string[] {
    const file = this.#musl ? "" : this.#text("/etc/ld.so.preload").toString("utf8").replace(/#.*/g, "");
    return `${this.#options.environment?.["LD_PRELOAD"] ?? ""} ${file}`.split(/[\s:]+/).filter(Boolean);
  }

  /** A small file inside the root; empty if there is none. */
  #text(path: string): Buffer {
    const file = resolveInRoot(this.#root, path);
    return file === undefined ? Buffer.alloc(0) : smallFile(file.host);
  }

  #absolute(path: string): string {
    return posix.isAbsolute(path) ? path : posix.join(this.#options.directory ?? "/", path);
  }

  #find(path: string): { inside: string; host: string } | undefined {
    return resolveInRoot(this.#root, this.#absolute(path));
  }

  #add(file: { inside: string; host: string }, role: LoadedFile["role"]): void {
    if (!this.files.has(file.inside)) this.files.set(file.inside, { path: file.inside, hostPath: file.host, role });
  }
}

function expand(list: string | undefined, by: string, machine: Machine): string[] {
  if (list === undefined || list === "") return [];
  return list.split(":").map((directory) => expandTokens(directory === "" ? "." : directory, by, machine));
}

/** Dynamic string tokens, ld.so(8). */
function expandTokens(text: string, by: string, machine: Machine): string {
  const values: Readonly<Record<string, string>> = {
    ORIGIN: posix.dirname(by),
    LIB: `lib/${multiarch[machine]}`,
    PLATFORM: muslMachine[machine],
  };
  return text.replace(
    /\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM))/g,
    (all, braced?: string, bare?: string) => {
      return values[braced ?? bare ?? ""] ?? all;
    },
  );
}
