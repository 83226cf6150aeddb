import { KloakError } from "../errors.ts";
import { CommandError } from "../run/launcher.ts";
import type { PortPair } from "../run/loopback.ts";
import { hideMemory } from "../run/native.ts";
import { type Protect, requireRoot, run } from "../run/run.ts";
import { commandEnvironment } from "../run/environment.ts";
import { commandUser } from "../run/user.ts";
import { type Manner, Report } from "./report.ts";

export interface RunOptions extends Manner {
  readonly config?: string;
  readonly secret?: readonly string[];
  readonly ca?: string;
  readonly attest?: string;
  readonly audit?: string;
  readonly publish?: readonly (PortPair | "auto")[];
  readonly hostPort?: readonly number[];
  readonly user?: string;
}

const ownFailure = 125;

/** `kloak run`: returns the exit status. */
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

const unprotected: Protect = async () => async () => undefined;

async function attempt(command: readonly string[], options: RunOptions, report: Report): Promise<number> {
  requireRoot(process.geteuid?.());
  hideMemory();
  const user = await commandUser(options.user, process.env);
  const launch = {
    command,
    environment: commandEnvironment(process.env, [], user),
    identity: user,
    covers: [],
    ignoredSignals: BigInt(process.env.KLOAK_IGNORED_SIGNALS ?? 0),
  };
  const plan = { launch, publish: options.publish ?? [], hostPorts: options.hostPort ?? [] };
  report.hold();
  return run(plan, unprotected, report);
}

export { KloakError };
