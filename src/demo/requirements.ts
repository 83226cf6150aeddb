/* What the demo needs besides Kloak. Says what it installs before it does. */
import { spawnSync } from "node:child_process";
import { KloakError } from "../errors.ts";
import { hasProgram } from "../lab/command.ts";

const needed: readonly { program: string; package: string }[] = [
  { program: "curl", package: "curl" },
  { program: "python3", package: "python3" },
  { program: "openssl", package: "openssl" },
  { program: "ip", package: "iproute2" },
  { program: "tcpdump", package: "tcpdump" },
];

/**
 * Makes sure that the programs of the demo are there; on Debian and its kin it installs what is missing.
 * @param say called before anything is installed
 */
export async function provide(say: (line: string) => void): Promise<void> {
  const missing: string[] = [];
  for (const { program, package: name } of needed) if (!(await hasProgram(program))) missing.push(name);
  if (missing.length === 0) return;
  const list = missing.join(" ");
  if (!(await hasProgram("apt-get"))) {
    throw new KloakError(
      "demo-tools-missing",
      `The demo needs these programs: ${list}. Install them and run it again.`,
    );
  }
  say(`These packages are missing and are installed now with apt-get: ${list}`);
  const apt = (args: readonly string[]) =>
    spawnSync("apt-get", ["-qq", "-y", "-o", "DPkg::Lock::Timeout=300", ...args], {
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    }).status;
  const install = ["install", "--no-install-recommends", ...missing];
  if (apt(install) === 0) return;
  apt(["update"]);
  if (apt(install) !== 0) {
    throw new KloakError(
      "demo-tools-missing",
      `apt-get could not install ${list}. Install them and run the demo again.`,
    );
  }
}
