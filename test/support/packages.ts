/* Packages of npm, PyPI and Debian for tests that need many or large ones; of the first two outside of the tree. */
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { runSync } from "../../src/lab/command.ts";

/** Outside of the tree, so that a clean clone need not fetch everything again. */
export const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "kloak-test");

/** Installs what a folder's package-lock.json names, and copies its programs beside it. Returns where. */
export function npmPackages(name: string, folder: string): string {
  const output = join(cache, name);
  once(output, join(folder, "package-lock.json"), () => {
    for (const file of ["package.json", "package-lock.json"]) copyFileSync(join(folder, file), join(output, file));
    runSync("npm", ["ci", "--ignore-scripts", "--loglevel=error", "--prefix", output]);
  });
  cpSync(folder, output, { recursive: true });
  return output;
}

/** A Python environment with what a file of requirements names; `python` is a path or a name. Returns where. */
export function pythonPackages(name: string, requirements: string, python = "python3"): string {
  const output = join(cache, name);
  once(output, requirements, () => {
    runSync(python, ["-m", "venv", "--clear", output]);
    runSync(join(output, "bin/pip"), ["install", "--quiet", "--requirement", requirements]);
  });
  return output;
}

/** The jars that a pom.xml names, with what they need. Returns the folder. Maven is Debian's, unless there is one. */
export function mavenPackages(name: string, pom: string): string {
  const output = join(cache, name);
  once(output, pom, () => {
    const found = (process.env["PATH"] ?? "").split(delimiter).some((folder) => existsSync(join(folder, "mvn")));
    if (!found) debianPackages(["maven"]);
    runSync("mvn", ["-q", "-B", "-f", pom, "dependency:copy-dependencies", `-DoutputDirectory=${output}`]);
  });
  return output;
}

/** Installs what is missing of these. @throws Error if apt-get cannot; it says why on standard error */
export function debianPackages(names: readonly string[]): void {
  const missing = names.filter((name) => !isInstalled(name));
  if (missing.length === 0) return;
  process.stderr.write(`installing with apt-get: ${missing.join(" ")}\n`);
  const apt = (...args: readonly string[]) =>
    execFileSync("apt-get", ["-q", "-y", "-o", "DPkg::Lock::Timeout=300", ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
      stdio: ["ignore", "ignore", "inherit"],
    });
  try {
    apt("install", "--no-install-recommends", ...missing);
  } catch {
    apt("update");
    apt("install", "--no-install-recommends", ...missing);
  }
}

function isInstalled(name: string): boolean {
  try {
    const status = execFileSync("dpkg-query", ["-W", "-f=${db:Status-Status}", name], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    return status === "installed";
  } catch {
    return false; // dpkg has never heard of it
  }
}

/** Makes a folder anew unless what it was made from is still the same. */
function once(output: string, from: string, make: () => void): void {
  const marker = join(output, "made-from");
  const wanted = readFileSync(from, "utf8");
  if (existsSync(marker) && readFileSync(marker, "utf8") === wanted) return;
  process.stderr.write(`fetching ${output}\n`);
  rmSync(output, { recursive: true, force: true });
  mkdirSync(output, { recursive: true });
  make();
  writeFileSync(marker, wanted);
}
