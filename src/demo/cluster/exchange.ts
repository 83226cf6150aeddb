/* What the demo's client and its test ask in a cluster: the demo's server, under two names, and the audit API. */
import { readFileSync } from "node:fs";
import { Agent, request } from "node:https";
import type { AuditRecord } from "../../audit/index.ts";
import { KubeClient } from "../../kube/client.ts";
import { inClusterConnection } from "../../kube/connection.ts";

/** How the chart sets the stage. */
export interface Stage {
  /** What this process holds in API_KEY. */
  readonly key: string;
  /** The host that the key is for, and another name of the same machine. */
  readonly allowed: string;
  readonly other: string;
  readonly pod: string;
  readonly namespace: string;
  /** Whether records can be asked for. */
  readonly hasAudit: boolean;
}

export function stageOf(environment: NodeJS.ProcessEnv): Stage {
  const variable = (name: string): string => environment[name] ?? "";
  return {
    key: variable("API_KEY"),
    allowed: variable("ALLOWED_HOST"),
    other: variable("OTHER_HOST"),
    pod: variable("POD_NAME"),
    namespace: variable("POD_NAMESPACE"),
    hasAudit: variable("AUDIT") === "true",
  };
}

export interface Answer {
  readonly status: number;
  /** What the server says that it was shown. */
  readonly received: string;
}

const agent = new Agent({ keepAlive: true });
const answerTimeoutMs = 15_000;

/** An ordinary request, as any client makes it. @throws Error if there is no answer */
export function ask(host: string, key: string): Promise<Answer> {
  const ca = readFileSync("/authority/ca.crt");
  const headers = { authorization: `Bearer ${key}` };
  return new Promise((resolve, reject) => {
    const outgoing = request({ agent, host, path: "/v1/models", ca, headers, timeout: answerTimeoutMs }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("end", () => {
        try {
          resolve({ status: response.statusCode ?? 0, received: (JSON.parse(text) as Answer).received });
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error(`no answer in ${answerTimeoutMs / 1000} s`)));
    outgoing.on("error", reject);
    outgoing.end();
  });
}

/** What the audit trail says of this pod. @throws KubeError */
export async function recordsOf({ namespace, pod }: Stage): Promise<readonly AuditRecord[]> {
  const client = new KubeClient(inClusterConnection());
  try {
    const path = `/apis/audit.getkloak.io/v1/namespaces/${namespace}/records`;
    const list = await client.request<{ items: AuditRecord[] }>("GET", path, { query: { workload: pod } });
    return list.items;
  } finally {
    client.close();
  }
}
