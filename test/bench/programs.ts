/* The benchmark's own programs: built on first use; the server runs on copies of the TLS library, so that no hook in
 * the client's library slows it: in life it is another machine. So does the client, on other copies: a probe belongs to
 * the file, and what else runs Kloak here, or has left its probes behind, would slow the bare run too. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { runSync } from "../../src/lab/command.ts";
import { pythonPackages } from "../support/packages.ts";

export const root = fileURLToPath(new URL("../..", import.meta.url));
export const output = join(root, "build/bench");

export interface Programs {
  readonly client: string;
  readonly server: string;
  /** Directories with copies of libssl and libcrypto. */
  readonly libraries: { readonly client: string; readonly server: string };
}

export function buildPrograms(): Programs {
  const libraries = { client: join(output, "lib-client"), server: join(output, "lib-server") };
  const makefile = `${output}/%: ${root}test/bench/%.c\n\t$(CC) -O2 -Wall -Wextra -Werror -o $@ $< -lssl -lcrypto -lpthread\n`;
  const targets = [join(output, "client"), join(output, "serve")];
  execFileSync("make", ["-s", "-f", "-", ...targets], { input: makefile, stdio: ["pipe", "inherit", "inherit"] });
  const linked = runSync("ldd", [join(output, "serve")]).matchAll(/=> (\S*lib(?:ssl|crypto)\S*)/g);
  const files = [...linked].flatMap(([, path]) => (path === undefined ? [] : [path]));
  for (const folder of Object.values(libraries)) {
    rmSync(folder, { recursive: true, force: true }); // new inodes, which no probe has ever been on
    mkdirSync(folder, { recursive: true });
    for (const file of files) copyFileSync(file, join(folder, basename(file)));
  }
  return { client: join(output, "client"), server: join(output, "serve"), libraries };
}

/** Installs the man-in-the-middle proxy, pinned, into a Python environment of its own; returns its command. */
export function installProxy(): string {
  return join(pythonPackages("proxy", join(root, "test/bench/requirements.txt")), "bin/mitmdump");
}
