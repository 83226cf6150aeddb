#!/usr/bin/env node
/* The command `kloak`: what it understands. Each command's work is in a module of its own, loaded when it is called. */
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { version } from "../version.ts";
import { parsePortPair, parsePort } from "./ports.ts";
import { Report, write } from "./report.ts";
import { controlHelp, usualRun, usualState } from "./agent-help.ts";
import type { AgentCommandOptions } from "./agent.ts";
import type { AuditOptions } from "./audit.ts";
import type { ControllerCommandOptions } from "./controller.ts";
import type { RunOptions } from "./run.ts";
import type { StatusOptions } from "./status.ts";

const ownFailure = 125;
const failure = 1;

const program = new Command("kloak")
  .description("Applications hold placeholders; the kernel puts the secrets into their TLS records on the way out.")
  .version(version)
  .enablePositionalOptions()
  .showHelpAfterError("(add --help for all options)")
  .configureOutput({
    writeOut: (text) => write(1, text),
    writeErr: (text) => write(2, text),
    outputError: (text, write) => write(text.replace(/^error: /, "kloak: ")),
  })
  .exitOverride();

const collect =
  <T>(parse: (text: string) => T) =>
  (text: string, before: readonly T[] = []): T[] => {
    try {
      return [...before, parse(text)];
    } catch (error) {
      throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
    }
  };
const asIs = (text: string): string => text;

const json = () => new Option("--json", "machine-readable output");

/** Of which cluster, as kubectl has it. */
const withCluster = (command: Command): Command =>
  command
    .option("--cluster", "of the cluster that your kubeconfig names, not of this host")
    .option("--kubeconfig <file>", "of the cluster that this file names (default: $KUBECONFIG, ~/.kube/config)")
    .option("--context <name>", "of the cluster of this context");

program
  .command("run")
  .description("run a command that holds placeholders instead of secrets")
  .usage("[options] -- command [args...]")
  .option("--config <file>", "configuration (default: ./kloak.yaml if there is one)")
  .option(
    "--secret <name@hosts[=source]>",
    "one secret; SOURCE is env:VAR, file:PATH or cmd:COMMAND; repeatable",
    collect(asIs),
  )
  .option("--ca <file>", "extra roots (PEM) for destination attestation")
  .addOption(
    new Option("--attest <mode>", "how destinations show who they are").choices(["certificate", "dns", "none"]),
  )
  .option("--audit <file>", "audit records, one JSON object a line (- for standard error)")
  .option(
    "--publish <port[:port]|auto>",
    "make a port of the command reachable on the host's loopback, as HOST:COMMAND; `auto`: every port it listens on; repeatable",
    collect(parsePortPair),
  )
  .option(
    "--host-port <port>",
    "a service on the host's loopback that the command reaches at 127.0.0.1:PORT; repeatable",
    collect(parsePort),
  )
  .option("--java", "load Kloak's agent into the JVMs of the command: Java's own TLS is not heard without it")
  .option("--user <name>", "run the command as this user (default: who called sudo, else the caller)")
  .option("--json", "kloak's own messages as JSON, one a line")
  .addOption(new Option("--quiet", "kloak says nothing but errors").conflicts("verbose"))
  .option("--verbose", "kloak says what it does")
  .argument("<command...>", "what to run")
  .passThroughOptions()
  .addHelpText("after", exitHelp())
  .action(async (command: string[], options: RunOptions) => {
    const { runAndExit } = await import("./run.ts");
    await runAndExit(command, options);
  });

program
  .command("agent")
  .description("protect workloads for as long as it runs, and hand them on to the agent that comes after it")
  .option("--state <folder>", "where the data plane is kept between agents, in a BPF file system", usualState)
  .option("--run <folder>", "where it listens and is locked", usualRun)
  .option("--audit <file>", "audit records, one JSON object a line (- for standard error)")
  .option(
    "--controller <url>",
    "in a cluster: where the controller's node API is; it says which pods use which secrets",
  )
  .option("--node <name>", "in a cluster: the name of this node")
  .option("--ca <file>", "whom to trust as the controller", "/var/run/kloak/trust/ca.crt")
  .option("--token <file>", "service-account token for audience kloak-controller", "/var/run/kloak/token/token")
  .option(
    "--runtime <file>",
    "in a cluster: a container runtime, held until its container is known; repeatable",
    collect(asIs),
  )
  .option("--health-port <port>", "where /healthz, /readyz and /metrics are, without TLS", parsePort)
  .option("--discard", "begin anew: what is kept is removed, and workloads that it protected have no network any more")
  .addOption(new Option("--json", "messages as JSON, one a line").conflicts("quiet"))
  .addOption(new Option("--quiet", "says nothing but errors").conflicts("verbose"))
  .option("--verbose", "says what it does")
  .addHelpText("after", controlHelp)
  .action(async (options: AgentCommandOptions) => {
    const { agentCommand } = await import("./agent.ts");
    process.exitCode = await agentCommand(options);
  });

program
  .command("doctor")
  .description("say whether this host can run Kloak; exit 1 if something needed is missing")
  .addOption(json())
  .option("--clean", "remove what runs that were killed have left behind")
  .action(async (options: { json?: boolean; clean?: boolean }) => {
    const { doctorCommand } = await import("./doctor.ts");
    process.exitCode = await doctorCommand(options);
  });

program
  .command("hooks")
  .description("show which TLS stacks a file or process has, and where they would be hooked")
  .argument("<file|pid>", "an executable or library, or the number of a process")
  .addOption(json())
  .action(async (target: string, options: { json?: boolean }) => {
    const { hooksCommand } = await import("./hooks.ts");
    process.exitCode = hooksCommand(target, options);
  });

program
  .command("placeholder")
  .description("read a value on standard input and print a placeholder of equal shape")
  .option("--prefix <text>", "leading characters that the placeholder keeps, for clients that check a key's shape")
  .action(async (options: { prefix?: string }) => {
    const { placeholderCommand } = await import("./placeholder.ts");
    process.exitCode = await placeholderCommand(options);
  });

program
  .command("secrets")
  .description("work with manifests and kloak.yaml")
  .command("validate")
  .description("check files; one line a finding: file:line, object, remedy; exit 1 on errors")
  .argument("<file...>", "manifests, kloak.yaml")
  .addOption(json())
  .action(async (files: string[], options: { json?: boolean }) => {
    const { validateCommand } = await import("./validate.ts");
    process.exitCode = validateCommand(files, options);
  });

withCluster(program.command("status"))
  .description("show what Kloak protects on this host, or in a cluster")
  .addOption(json())
  .action(async (options: StatusOptions) => {
    const { statusCommand } = await import("./status.ts");
    process.exitCode = await statusCommand(options);
  });

withCluster(program.command("audit"))
  .description("show the audit trail, filtered")
  .option("--file <file>", "audit records as `kloak run --audit FILE` writes them (- for standard input)")
  .option("-n, --namespace <name>", "in a cluster: of pods of this namespace (default: the context's)")
  .option("-A, --all-namespaces", "in a cluster: of pods of all namespaces")
  .option("--secret <name>", "of this secret; in a cluster namespace/name/key; * stands for any text")
  .option("--workload <name|pid>", "of this command or process; in a cluster of this pod")
  .option("--outcome <outcome>", "substituted, refused or unprotected")
  .option("--since <time>", "not older: 10m, 2h, 3d, or a point in time (ISO 8601)")
  .option("--follow", "wait for more")
  .addOption(json())
  .action(async (options: AuditOptions) => {
    const { auditCommand } = await import("./audit.ts");
    process.exitCode = await auditCommand(options);
  });

program
  .command("demo")
  .description("show a substitution, a refusal and the audit trail on this host")
  .action(async () => {
    const { demoCommand } = await import("./demo.ts");
    process.exitCode = await demoCommand();
  });

program
  .command("controller")
  .description("run the controller of a cluster: shadows, admission, node API (what the chart's Deployment runs)")
  .option("--namespace <name>", "namespace of this release", "kloak-system")
  .option("--name <name>", "name of our Service, Lease and own objects", "kloak-controller")
  .option("--webhooks <name>", "name of our webhook configurations", "kloak")
  .option("--agent <name>", "service account of the agents", "kloak-agent")
  .option("--certificates <folder>", "tls.crt, tls.key and ca.crt made by others (default: made here)")
  .option("--only-ready-nodes", "label nodes whose agent is ready, and let cloaked pods go to no others")
  .option("--webhook-port <port>", "admission webhooks", parsePort, 9443)
  .option("--nodes-port <port>", "API for agents", parsePort, 9444)
  .option("--audit-port <port>", "aggregated API audit.getkloak.io", parsePort, 9445)
  .option("--metrics-port <port>", "metrics and probes, without TLS", parsePort, 9090)
  .option("--log-level <level>", "fatal, error, warn, info, debug or trace", "info")
  .action(async (options: ControllerCommandOptions) => {
    const { controllerCommand } = await import("./controller.ts");
    process.exitCode = await controllerCommand(options);
  });

function exitHelp(): string {
  return `
Exit status: the command's own; 128+N if signal N killed it; 127 if it is not found, 126 if it cannot be executed;
125 if kloak itself fails.`;
}

const isRun = process.argv[2] === "run";
try {
  await program.parseAsync();
} catch (error) {
  // Commander has said what is wrong; --help and --version come this way too, with status 0.
  if (!(error instanceof CommanderError)) new Report({ json: process.argv.includes("--json") && !isRun }).error(error);
  process.exitCode = error instanceof CommanderError && error.exitCode === 0 ? 0 : isRun ? ownFailure : failure;
}
