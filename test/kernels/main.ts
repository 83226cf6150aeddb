/**
 * npm run test:kernels -- [--only guest|host] [--write]
 * Loads every program, and runs the core suite, on Debian's 6.1 kernel in a virtual machine and on the running kernel.
 * --write: docs/verifier.md from what both say, if nothing failed.
 */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { projectRoot } from "../../src/dataplane/native.ts";
import { allowedShare, type Figure, share } from "./figures.ts";
import { runInGuest } from "./guest.ts";
import { debianPackages } from "../support/packages.ts";
import { debianKernel } from "./kernel.ts";
import { coreSuite, skipped } from "./suite.ts";
import { type KernelFigures, page, table } from "./table.ts";

const { values } = parseArgs({ options: { only: { type: "string" }, write: { type: "boolean", default: false } } });

const node = "sh scripts/node --disable-warning=ExperimentalWarning";
/*
 * QEMU 7.2 runs guest code that one of its CPUs has just written on another one before all of it is there: V8 compiles in
 * threads, and node ended by a signal once in thirty starts. Each process stays on one CPU, the tests' on one and Kloak's on the
 * other, so code is made where it is run.
 */
const steady = `
mkdir -p /run/kloak-steady
real=$(sh scripts/node --which)
cat >/run/kloak-steady/node <<END
#!/bin/sh
cpu=1
for word in "\\$@"; do [ "\\$word" != --test ] || cpu=0; done
exec taskset -c "\\$cpu" "$real" "\\$@"
END
chmod +x /run/kloak-steady/node
export NODE=/run/kloak-steady/node
`;

const suite = (prepare: string): string => `set -u
export NO_COLOR=1
cd '${projectRoot}'
ip link set lo up
${prepare}
failed=0
${node} test/kernels/here.ts || failed=1
run() {
	echo "-- $1"
	${node} --test --test-reporter=spec --test-timeout=600000 --test-skip-pattern='${skipped}' --test-name-pattern="$2" "$1" || failed=1
}
${coreSuite.map(({ file, only }) => `run ${file} '${only ?? "."}'`).join("\n")}
[ $failed = 0 ] || dmesg | grep -E 'segfault|traps:|Out of memory|Oops|BUG:' || true
exit $failed
`;

type Runner = (print: (line: string) => void) => Promise<number>;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stop.abort());

const runners: { readonly name: string; readonly release: string; readonly run: Runner }[] = [];
if (values.only !== "host") {
  debianPackages(["qemu-system-x86", "kmod"]);
  const kernel = debianKernel("linux-image-cloud-amd64");
  const name = `${kernel.release}, in a virtual machine under software emulation`;
  runners.push({
    name,
    release: kernel.release,
    run: (print) =>
      runInGuest({ kernel, script: suite(steady), print, signal: AbortSignal.any([stop.signal, deadline()]) }),
  });
}
if (values.only !== "guest") runners.push({ name: `${release()}, the running one`, release: release(), run: runHere });

/** A guest that hangs must not hang us; on an idle machine the suite takes a quarter of this. */
function deadline(): AbortSignal {
  return AbortSignal.timeout(20 * 60_000);
}

async function runHere(print: (line: string) => void): Promise<number> {
  const child = spawn("sh", ["-c", suite("")], {
    stdio: ["ignore", "pipe", "inherit"],
    signal: stop.signal,
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve(code ?? 1));
  });
  for await (const line of createInterface({ input: child.stdout })) print(line);
  return await ended;
}

const measured: KernelFigures[] = [];
const failures: string[] = [];
for (const { name, release: kernel, run } of runners) {
  console.log(`== Linux ${name}`);
  const figures: Figure[] = [];
  const code = await run((line) => {
    if (line.startsWith("figure ")) figures.push(JSON.parse(line.slice("figure ".length)) as Figure);
    else console.log(line);
  });
  measured.push({ release: kernel, figures });
  console.log(table([{ release: kernel, figures }]));
  if (figures.length === 0) failures.push(`${kernel}: no program was verified`);
  if (code !== 0) failures.push(`${kernel}: ended with ${code}`);
  for (const figure of figures)
    if (share(figure) > allowedShare)
      failures.push(`${kernel}: ${figure.program} is too near a limit (${JSON.stringify(figure)})`);
}
for (const failure of failures) console.log(`FAILED ${failure}`);
if (values.write && failures.length === 0 && values.only === undefined)
  writeFileSync(join(projectRoot, "docs/verifier.md"), page(measured));
else if (values.write)
  console.log("docs/verifier.md stays as it is: it is written when all has passed on both kernels");
process.exitCode = failures.length === 0 ? 0 : 1;
