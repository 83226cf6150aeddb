import { readdirSync } from "node:fs";
import { posix } from "node:path";
import { parseLibraryCache } from "./ld-cache.ts";
import type { LoadedFile, LoadOptions } from "./libraries.ts";
import { resolveInRoot } from "./root-path.ts";
import { smallFile } from "./small-file.ts";

const libcrypto = /^libcrypto(?:-[\w.]+?)?\.so(?:\.\d+)*$/;
const directories = [
  "/lib",
  "/usr/lib",
  "/usr/local/lib",
  "/lib64",
  "/usr/lib64",
  "/usr/local/lib64",
  "/lib/x86_64-linux-gnu",
  "/usr/lib/x86_64-linux-gnu",
  "/lib/aarch64-linux-gnu",
  "/usr/lib/aarch64-linux-gnu",
];

/**
 * The libcryptos that are installed under a root. Interpreters open them when a program asks for TLS (Python, Ruby,
 * .NET), so they are in no executable's list of needs: hooked beforehand, they are heard from the first call.
 */
export function installedCrypto(options: Pick<LoadOptions, "root" | "ldCache"> = {}): LoadedFile[] {
  const root = options.root ?? "/";
  const candidates = directories.flatMap((directory) =>
    namesIn(root, directory).map((name) => posix.join(directory, name)),
  );
  const cache = options.ldCache ?? fileIn(root, "/etc/ld.so.cache");
  for (const machine of ["x86-64", "arm64"] as const) {
    for (const [name, paths] of parseLibraryCache(cache, machine)) {
      if (libcrypto.test(name)) candidates.push(...paths);
    }
  }
  const found = new Map<string, LoadedFile>();
  for (const candidate of candidates) {
    const file = resolveInRoot(root, candidate);
    if (file !== undefined) found.set(file.inside, { path: file.inside, hostPath: file.host, role: "library" });
  }
  return [...found.values()];
}

function namesIn(root: string, directory: string): string[] {
  const place = resolveInRoot(root, directory);
  try {
    return place === undefined ? [] : readdirSync(place.host).filter((name) => libcrypto.test(name));
  } catch {
    return [];
  }
}

function fileIn(root: string, path: string): Buffer {
  const place = resolveInRoot(root, path);
  return place === undefined ? Buffer.alloc(0) : smallFile(place.host);
}
