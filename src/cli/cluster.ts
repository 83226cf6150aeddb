/* `kloak audit` and `kloak status` of a cluster: the aggregated API audit.getkloak.io, asked as the user of a kubeconfig. */
import { createHash } from "node:crypto";
import { type AuditRecord, parseFilter, recordText } from "../audit/index.ts";
import type { FilterInput } from "../audit/filter.ts";
import { auditGroup } from "../audit/group.ts";
import { KloakError } from "../errors.ts";
import { Backoff } from "../kube/backoff.ts";
import { KubeClient } from "../kube/client.ts";
import { KubeError } from "../kube/error.ts";
import { type UserConnection, userConnection } from "../kube/kubeconfig.ts";

export interface ClusterOptions {
  readonly cluster?: boolean;
  readonly kubeconfig?: string;
  readonly context?: string;
  readonly namespace?: string;
  readonly allNamespaces?: boolean;
}

/** Whether a cluster is asked for. */
export function namesCluster({ cluster, kubeconfig, context, namespace, allNamespaces }: ClusterOptions): boolean {
  const isNamed = [kubeconfig, context, namespace].some((each) => each !== undefined);
  return isNamed || cluster === true || allNamespaces === true;
}

export interface ClusterAudit extends ClusterOptions, FilterInput {
  readonly follow?: boolean;
  readonly json?: boolean;
  readonly signal: AbortSignal;
}

/** The server says something at least every fifteen seconds. */
const silenceMs = 45_000;
/** As many as a controller keeps. */
const rememberedMax = 20_000;

/** The lines to print. @throws KloakError */
export async function* clusterAuditLines(options: ClusterAudit): AsyncGenerator<string> {
  const { secret, workload, outcome, since, follow = false, json = false, signal } = options;
  parseFilter({ secret, workload, outcome, since }); // a wrong one is said by us, and at once
  const user = await userConnection({ file: options.kubeconfig, context: options.context });
  const client = new KubeClient(user.connection);
  const namespace = options.allNamespaces === true ? undefined : (options.namespace ?? user.namespace);
  const request: Asked = { user, resource: "records", namespace, query: { secret, workload, outcome, since }, signal };
  try {
    const records = follow ? followed(client, request) : listed(client, request);
    for await (const record of records) yield json ? JSON.stringify(record) : recordText(record);
  } finally {
    client.close();
  }
}

export interface ClusterStatus {
  /** Those whose agent is connected. */
  readonly nodes: readonly string[];
  /** Cloaked ones that run. */
  readonly pods: number;
  /** Managed ones. */
  readonly secrets: number;
  /** Records that had to make room. */
  readonly recordsDropped: number;
}

/** @throws KloakError */
export async function clusterStatus(options: ClusterOptions): Promise<ClusterStatus> {
  const user = await userConnection({ file: options.kubeconfig, context: options.context });
  const client = new KubeClient(user.connection);
  const asked: Asked = { user, resource: "status", namespace: undefined, query: {}, signal: undefined };
  try {
    const {
      kind: _,
      apiVersion: __,
      ...status
    } = await client
      .request<ClusterStatus & { kind: string; apiVersion: string }>("GET", pathOf(asked))
      .catch((error: unknown) => explain(error, asked));
    return status;
  } finally {
    client.close();
  }
}

export function statusText({ nodes, pods, secrets, recordsDropped }: ClusterStatus): string {
  const agents =
    nodes.length === 0 ? "no node has an agent that is connected" : `agents on ${nodes.toSorted().join(", ")}`;
  const dropped =
    recordsDropped === 0 ? "" : `${recordsDropped} audit records have left to make room: the log has them.\n`;
  return `${pods} cloaked pods, ${secrets} managed Secrets; ${agents}.\n${dropped}`;
}

interface Asked {
  readonly user: UserConnection;
  readonly resource: "records" | "status";
  /** Undefined: all. */
  readonly namespace: string | undefined;
  readonly query: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal | undefined;
}

async function* listed(client: KubeClient, asked: Asked): AsyncGenerator<AuditRecord> {
  const { query, signal } = asked;
  const options = { query, ...(signal !== undefined && { signal }) };
  const list = await client
    .request<{ items: readonly AuditRecord[] }>("GET", pathOf(asked), options)
    .catch((error: unknown) => explain(error, asked));
  yield* list.items;
}

/** Each record once, however often the connection ends. */
async function* followed(client: KubeClient, asked: Asked): AsyncGenerator<AuditRecord> {
  const seen = new Set<string>();
  const backoff = new Backoff(200, 10_000);
  let hasBegun = false;
  const signal = asked.signal ?? new AbortController().signal;
  while (!signal.aborted) {
    try {
      const query = { ...asked.query, watch: "true" };
      for await (const line of client.lines(pathOf(asked), { query, signal, silenceMs })) {
        hasBegun = true;
        backoff.reset();
        const name = createHash("sha256").update(JSON.stringify(line)).digest("base64");
        if (seen.has(name)) continue;
        seen.add(name);
        if (seen.size > rememberedMax) seen.delete(seen.values().next().value ?? "");
        yield line as AuditRecord;
      }
    } catch (error) {
      if (signal.aborted) return;
      const isRefusal = error instanceof KubeError && error.status >= 400 && error.status < 500;
      if (!hasBegun || isRefusal) explain(error, asked);
    }
    await backoff.wait(signal);
  }
}

function pathOf({ namespace, resource }: Asked): string {
  const within = namespace === undefined ? "" : `/namespaces/${encodeURIComponent(namespace)}`;
  return `/apis/${auditGroup}/v1${within}/${resource}`;
}

/** What the user can do about it. @throws KloakError */
function explain(error: unknown, { user: { about, connection }, resource, namespace }: Asked): never {
  if (!(error instanceof KubeError)) throw error;
  const where = namespace === undefined ? "of all namespaces" : `of namespace ${namespace}`;
  const say = (code: string, text: string): KloakError => new KloakError(code, text, { cause: error });
  switch (error.status) {
    case 0:
      throw say(
        "cluster-unreachable",
        `${about}: ${error.message}; check the server ${connection.server.host}, or name another with --context`,
      );
    case 401:
      throw say(
        "cluster-unauthorized",
        `${about}: the cluster does not accept these credentials; log in again, or name another user with --context`,
      );
    case 403: {
      const binding =
        namespace === undefined
          ? "kubectl create clusterrolebinding NAME --clusterrole=kloak-audit-viewer --user=USER"
          : `kubectl -n ${namespace} create rolebinding NAME --clusterrole=kloak-audit-viewer --user=USER`;
      const next = namespace === undefined && resource === "records" ? ", or name one namespace with --namespace" : "";
      throw say(
        "cluster-forbidden",
        `${about}: you may not see ${resource} ${where}; who administers it can allow it: ${binding}${next}`,
      );
    }
    case 404:
      throw say(
        "cluster-no-kloak",
        `${about}: this cluster has no ${auditGroup}; install Kloak there with audit.api=true, or name another with --context`,
      );
    case 503:
      throw say(
        "cluster-no-controller",
        `${about}: ${auditGroup} does not answer; look at its controller: kubectl -n kloak-system get pods`,
      );
    default:
      throw say("cluster-refused", `${about}: ${error.message}`);
  }
}
