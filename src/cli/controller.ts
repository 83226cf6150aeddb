import { hostname } from "node:os";
import { randomUUID } from "node:crypto";
import { pino } from "pino";
import { runController } from "../controller/controller.ts";
import { type Connection, inClusterConnection } from "../kube/connection.ts";

export interface ControllerCommandOptions {
  readonly namespace: string;
  readonly name: string;
  readonly webhooks: string;
  readonly agent: string;
  readonly certificates?: string;
  readonly onlyReadyNodes?: boolean;
  readonly webhookPort: number;
  readonly nodesPort: number;
  readonly auditPort: number;
  readonly metricsPort: number;
  readonly logLevel: string;
}

/** `kloak controller`: runs until SIGTERM or SIGINT. */
export async function controllerCommand(options: ControllerCommandOptions): Promise<number> {
  const stop = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => stop.abort());
  const log = pino({ name: "kloak-controller", level: options.logLevel });
  await runController(
    {
      connection: await connectionOfController(),
      namespace: options.namespace,
      name: options.name,
      webhooks: options.webhooks,
      agent: options.agent,
      identity: `${hostname()}_${randomUUID()}`,
      certificates: options.certificates,
      onlyReadyNodes: options.onlyReadyNodes ?? false,
      ports: {
        webhook: options.webhookPort,
        nodes: options.nodesPort,
        audit: options.auditPort,
        metrics: options.metricsPort,
      },
      log,
    },
    stop.signal,
  );
  return 0;
}

/** A pod's own; outside of a cluster that of a kubeconfig, whose reader a pod need not load. */
async function connectionOfController(): Promise<Connection> {
  if ((process.env["KUBECONFIG"] ?? "") === "") return inClusterConnection();
  const { userConnection } = await import("../kube/kubeconfig.ts");
  return (await userConnection()).connection;
}
