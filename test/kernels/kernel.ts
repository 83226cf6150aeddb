/* The kernel of a Debian package, unpacked outside of the tree. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cache as packageCache } from "../support/packages.ts";

export const cache = join(packageCache, "kernels");

export interface Kernel {
  /** Such as `6.1.0-56-cloud-amd64`. */
  readonly release: string;
  readonly image: string;
  /** Holds the folder `release`, and can be bound to /lib/modules. */
  readonly modules: string;
}

/** What `metaPackage` stands for now; without network what was fetched before. Throws without either. */
export function debianKernel(metaPackage: string): Kernel {
  const folder = join(cache, metaPackage);
  mkdirSync(folder, { recursive: true });
  let failure: unknown;
  try {
    fetchNewest(metaPackage, folder);
  } catch (error) {
    failure = error;
  }
  const unpacked = readdirSync(folder).toSorted(byNumbers).at(-1);
  if (unpacked === undefined) {
    const message = `Debian's package ${metaPackage} cannot be had: this needs Debian 12, its network, and apt-get`;
    throw new Error(message, { cause: failure });
  }
  const modules = join(folder, unpacked, "lib/modules");
  const release = readdirSync(modules)[0];
  if (release === undefined) throw new Error(`${unpacked} has no modules: remove ${join(folder, unpacked)}`);
  return { release, modules, image: join(folder, unpacked, "boot", `vmlinuz-${release}`) };
}

const byNumbers = (a: string, b: string): number => a.localeCompare(b, "en", { numeric: true });

function fetchNewest(metaPackage: string, folder: string): void {
  try {
    fetch(dependency(metaPackage), folder);
  } catch {
    // The lists are old: the archive has a newer one, and no longer this.
    execFileSync("apt-get", ["-q", "update"], { stdio: ["ignore", "ignore", "pipe"] });
    fetch(dependency(metaPackage), folder);
  }
}

function dependency(metaPackage: string): string {
  const told = execFileSync("apt-cache", ["depends", metaPackage], { encoding: "utf8" });
  const name = /Depends: (linux-image-6\.1\.\S+)/.exec(told)?.[1];
  if (name === undefined) throw new Error(`apt knows no Linux 6.1 by the name of ${metaPackage}:\n${told}`);
  return name;
}

/** Unpacked beside and renamed, so that what is there is whole. */
function fetch(name: string, folder: string): void {
  if (existsSync(join(folder, name))) return;
  const beside = mkdtempSync(join(cache, ".fetch-"));
  try {
    execFileSync("apt-get", ["-q", "download", name], { cwd: beside, stdio: ["ignore", "ignore", "pipe"] });
    const file = readdirSync(beside).find((entry) => entry.endsWith(".deb"));
    if (file === undefined) throw new Error(`apt-get download ${name} brought nothing`);
    execFileSync("dpkg-deb", ["-x", file, "root"], { cwd: beside });
    renameSync(join(beside, "root"), join(folder, name));
  } finally {
    rmSync(beside, { recursive: true, force: true });
  }
}

/** Files of the named modules and of all they need, in the order in which they can be loaded. */
export function moduleFiles(kernel: Kernel, names: readonly string[]): string[] {
  const root = join(kernel.modules, kernel.release);
  const needs = dependencies(kernel, root);
  const ordered: string[] = [];
  const visit = (file: string): void => {
    if (ordered.includes(file)) return;
    for (const needed of needs.get(file) ?? []) visit(needed);
    ordered.push(file);
  };
  for (const name of names) {
    const file = [...needs.keys()].find((path) => path.endsWith(`/${name}.ko`));
    // What is built into the kernel needs no file.
    if (file !== undefined) visit(file);
  }
  return ordered.map((file) => join(root, file));
}

function dependencies(kernel: Kernel, root: string): Map<string, string[]> {
  const table = join(root, "modules.dep");
  // The package's own scripts would make it when installed.
  if (!existsSync(table)) execFileSync("depmod", ["-b", join(kernel.modules, "../.."), kernel.release]);
  const rows = readFileSync(table, "utf8").trim().split("\n");
  return new Map(
    rows.map((row) => {
      const [file = "", needed = ""] = row.split(":");
      return [file, needed.trim().split(" ").filter(Boolean)];
    }),
  );
}
