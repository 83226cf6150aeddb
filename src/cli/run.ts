import { commandEnvironment, type HiddenValue, ignoredSignals } from "../run/environment.ts";
import { readFacts, requireHost } from "../run/host.ts";
import { withJavaAgent } from "../run/java.ts";
import { CommandError } from "../run/launcher.ts";
import type { PortPair } from "../run/loopback.ts";
import { exitNow, hideMemory } from "../run/native.ts";
import { type Protect, run } from "../run/run.ts";
import { type LoadedSecret, loadSecrets, refuseArguments } from "../run/secrets.ts";
import { commandUser } from "../run/user.ts";
import { type Manner, Report } from "./report.ts";
import { Trail } from "./trail.ts";

export interface RunOptions extends Manner {
  readonly config?: string;
  readonly secret?: readonly string[];
  readonly ca?: string;
  readonly attest?: string;
  readonly audit?: string;
  readonly publish?: readonly (PortPair | "auto")[];
  readonly hostPort?: readonly number[];
  readonly java?: boolean;
  readonly user?: string;
}

const ownFailure = 125;

/** `kloak run`: ends this process with the command's status. */
export async function runAndExit(command: readonly string[], options: RunOptions): Promise<void> {
  const status = await runCommand(command, options);
  try {
    exitNow(status);
  } catch {
    process.exitCode = status; // the addon is what is missing
  }
}

/** Returns the exit status. */
export async function runCommand(command: readonly string[], options: RunOptions): Promise<number> {
  const report = new Report(options);
  try {
    return await attempt(command, options, report);
  } catch (error) {
    report.release();
    report.error(error);
    return error instanceof CommandError ? error.status : ownFailure;
  } finally {
    report.release();
  }
}

/** With no secret there is nothing to protect, and the data plane need not be loaded. */
const unprotected: Protect = async () => async () => undefined;

async function attempt(command: readonly string[], options: RunOptions, report: Report): Promise<number> {
  requireHost(readFacts());
  hideMemory();
  const user = await commandUser(options.user, process.env);
  const secrets = await loadSecrets(options, process.env);
  refuseArguments(command, secrets);
  const trail = new Trail(options.audit, report);
  try {
    const environment = commandEnvironment(process.env, secrets.map(hidden), user);
    const protect = secrets.length === 0 ? unprotected : await protection(secrets, trail, report);
    const plan = {
      launch: {
        command,
        environment: options.java === true ? withJavaAgent(environment) : environment,
        identity: user,
        ignoredSignals: BigInt(process.env[ignoredSignals] ?? 0),
      },
      covers: secrets.flatMap(({ file, placeholder }) =>
        file === undefined ? [] : [{ over: file, content: placeholder }],
      ),
      publish: options.publish ?? [],
      hostPorts: options.hostPort ?? [],
    };
    report.hold();
    return await run(plan, protect, report);
  } finally {
    await trail.close();
  }
}

async function protection(secrets: readonly LoadedSecret[], trail: Trail, report: Report): Promise<Protect> {
  const { protectWith } = await import("../run/protect.ts");
  return protectWith({
    secrets,
    audit: (record) => trail.add(record),
    refusalsOnly: !trail.keepsAll,
    detail: (message) => report.detail(message),
    warn: (message) => report.warn(message),
  });
}

function hidden({ name, placeholder, value, variable }: LoadedSecret): HiddenValue {
  return { name, placeholder, value: value.reveal().toString("utf8"), source: variable };
}
