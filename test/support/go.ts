/* Go's own compiler, of this machine or from the module proxy, and the programs of the tests that it builds. */
import { execFileSync } from "node:child_process";
import { accessSync, chmodSync, constants, existsSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { cache as packageCache } from "./packages.ts";
import { root } from "./world.ts";

export interface GoBuild {
  /** Folder under test/support/clients. */
  readonly program: string;
  /** Such as "1.22.12"; the machine's own compiler unless given. */
  readonly version?: string;
  readonly stripped?: boolean;
  /** Position-independent. */
  readonly pie?: boolean;
  /** Linked by the C compiler, against the system's C library. */
  readonly cgo?: boolean;
  readonly tags?: string;
  readonly env?: Readonly<Record<string, string>>;
}

const cache = join(packageCache, "go");

/** Builds a program and returns its path. The compiler itself knows what it has to do again. */
export function goProgram(build: GoBuild): string {
  const { program, version, stripped = false, pie = false, cgo = false, tags, env = {} } = build;
  const kind = [stripped ? "stripped" : "", pie ? "pie" : "", cgo ? "cgo" : "", tags ?? "", ...Object.values(env)];
  const output = join(cache, "bin", [program, version ?? "local", ...kind.filter((text) => text !== "")].join("-"));
  const flags = [
    ...(pie ? ["-buildmode=pie"] : []),
    ...(tags === undefined ? [] : ["-tags", tags]),
    `-ldflags=${[stripped ? "-s -w" : "", cgo ? "-linkmode=external" : ""].join(" ").trim()}`,
  ];
  mkdirSync(join(cache, "bin"), { recursive: true });
  execFileSync(compiler(version), ["build", "-trimpath", ...flags, "-o", output, "."], {
    cwd: join(root, "test/support/clients", program),
    env: { ...environment(), CGO_ENABLED: cgo ? "1" : "0", ...env },
    stdio: ["ignore", "inherit", "inherit"],
  });
  return output;
}

function environment(): NodeJS.ProcessEnv {
  return { ...process.env, GOTOOLCHAIN: "local", GOFLAGS: "-buildvcs=false", GOCACHE: join(cache, "build") };
}

function compiler(version: string | undefined): string {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/local/go/bin", "/usr/lib/go/bin"];
  const own = folders.map((folder) => join(folder, "go")).find((file) => existsSync(file));
  if (own === undefined) throw new Error("Go is not here: install Debian's package golang-go.");
  return version === undefined ? own : join(toolchain(own, version), "bin/go");
}

/** A toolchain is a module like any other, of which the proxy keeps no permissions. */
function toolchain(own: string, version: string): string {
  const name = `golang.org/toolchain@v0.0.1-go${version}.linux-amd64`;
  const told = execFileSync(own, ["mod", "download", "-json", name], {
    cwd: cache,
    env: { ...environment(), GOFLAGS: "-mod=mod" },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  const { Dir: folder } = JSON.parse(told) as { Dir: string };
  for (const tools of ["bin", "pkg/tool/linux_amd64"]) makeExecutable(join(folder, tools));
  return folder;
}

function makeExecutable(folder: string): void {
  for (const name of readdirSync(folder)) {
    const file = join(folder, name);
    try {
      accessSync(file, constants.X_OK);
    } catch {
      chmodSync(file, statSync(file).mode | 0o111);
    }
  }
}
