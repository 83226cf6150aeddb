/*
 * The controller: keeps shadows, admits pods and Secrets, tells nodes what their pods may use, and gathers their audit
 * records. Every replica does all of it but the shadows, which the leader writes alone.
 */
import type { Logger } from "pino";
import { auditGroup } from "../audit/group.ts";
import { serveHealth } from "../health.ts";
import { KubeClient } from "../kube/client.ts";
import type { Connection } from "../kube/connection.ts";
import { sleep } from "../kube/backoff.ts";
import { EventRecorder } from "../kube/events.ts";
import { Election } from "../kube/lease.ts";
import { KeyedQueue } from "../kube/queue.ts";
import type { CertificateSource } from "../tls/certificate-source.ts";
import { FolderCertificates } from "../tls/folder-certificates.ts";
import { HttpError, HttpsServer, type Route } from "../tls/server.ts";
import { type AdmissionRequest, admitPod, admitSecret, readReview, writeReview } from "../webhook/admission.ts";
import { AuditApi } from "./audit-api.ts";
import { AuditStore } from "./audit-store.ts";
import { ClusterView } from "./cluster-view.ts";
import { ControllerMetrics } from "./metrics.ts";
import { NodeApi } from "./node-api.ts";
import { NodeIdentity } from "./node-identity.ts";
import { OutdatedPods } from "./outdated-pods.ts";
import { OwnCertificates } from "./own-certificates.ts";
import { Peers } from "./peers.ts";
import { PodEvents } from "./pod-events.ts";
import { keepReadyNodes } from "./ready-nodes.ts";
import { ShadowController } from "./shadow-controller.ts";
import { trustApi, trustWebhooks } from "./webhook-trust.ts";

export interface ControllerOptions {
  readonly connection: Connection;
  /** Of this release. */
  readonly namespace: string;
  /** Of the Service that leads here, and of our Lease, Secret and ConfigMap. */
  readonly name: string;
  /** Name of the webhook configurations whose `caBundle` we keep. */
  readonly webhooks: string;
  /** Name of the agents' service account. */
  readonly agent: string;
  /** Unique to this replica. */
  readonly identity: string;
  /** A folder with the certificate of webhook and APIs, from cert-manager or by hand; undefined: we make our own. */
  readonly certificates: string | undefined;
  /** Whether cloaked pods wait for nodes whose agent is ready. */
  readonly onlyReadyNodes: boolean;
  readonly ports: {
    readonly webhook: number;
    readonly nodes: number;
    readonly audit: number;
    readonly metrics: number;
  };
  readonly log: Logger;
}

/** A replica that is asked to end still answers for so long: those who send it requests learn of its end a little later. */
const drainMs = 5000;
const graceMs = 5000;

/** Until `signal` is aborted. */
export async function runController(options: ControllerOptions, signal: AbortSignal): Promise<void> {
  const over = new AbortController();
  const { connection, namespace, name, log } = options;
  const client = new KubeClient(connection);
  const warn = (message: string): void => log.warn(message);
  const metrics = new ControllerMetrics();
  const events = new EventRecorder({ client, component: "kloak-controller", warn });
  const store = new AuditStore({ identity: options.identity });
  const outdated = new OutdatedPods(metrics.outdated);
  const services = serviceNames(name, namespace);
  const own = new OwnCertificates({
    client,
    namespace,
    secretName: `${name}-certificates`,
    trustName: `${name}-trust`,
    names: services,
    warn,
  });
  const certificates: CertificateSource =
    options.certificates === undefined ? own : new FolderCertificates(options.certificates, warn);

  const queue = new KeyedQueue({
    work: (key) => shadows.reconcile(key),
    failed: (key, error, retryMs) => {
      metrics.reconcileErrors.inc();
      log.warn({ secret: key, retryMs: Math.round(retryMs) }, messageOf(error));
    },
  });
  const view: ClusterView = new ClusterView({
    client,
    warn,
    secretChanged: (key) => ShadowController.originalKeys(key).forEach((each) => queue.add(each)),
    shadowChanged: (key, now) => shadows.shadowChanged(key, now),
    podEnded: (uid) => outdated.ended(uid),
    nodeChanged: (node) => nodes.changed(node),
  });
  const shadows: ShadowController = new ShadowController({
    client,
    events,
    managed: view.managed,
    shadows: view.shadows,
    podsUsing: (shadow) => view.podsUsing(shadow),
    outdated: (shadow, pods) => outdated.add(shadow, pods),
  });
  const podEvents = new PodEvents({ events, secret: (key) => view.managed.get(key) });
  const nodes: NodeApi = new NodeApi({
    identity: new NodeIdentity({ client, agentUser: `system:serviceaccount:${namespace}:${options.agent}` }),
    authority: () => own.authority,
    stateOf: (node) => view.stateOf(node),
    hasPod: (node, uid) => view.hasPod(node, uid),
    resolve: (node, uids) => view.resolve(node, uids),
    record: (record) => {
      store.add(record);
      metrics.count(record);
      log.info({ audit: record }, "audit");
      void podEvents.add(record);
    },
    signal,
  });
  const peers = new Peers({
    identity: options.identity,
    name: `${name}-peers.${namespace}.svc`,
    port: options.ports.nodes,
    serverName: `${name}.${namespace}.svc`,
    certificates: own,
    authority: () => own.authority,
    store,
    nodes: () => nodes.nodes,
    signal: over.signal,
    warn,
  });
  const audit = new AuditApi({
    client,
    store,
    signal: over.signal,
    status: () => ({
      nodes: peers.nodes,
      pods: view.pods.size,
      secrets: view.managed.size,
      recordsDropped: store.dropped,
    }),
  });

  const background = [
    view.run(over.signal),
    certificates.run(over.signal),
    // Agents are known by certificates of our own authority, wherever the server's own comes from.
    ...(certificates === own ? [] : [own.run(over.signal)]),
  ];
  await until(() => certificates.identity !== undefined && own.authority !== undefined, signal);
  if (signal.aborted) {
    over.abort();
    await Promise.all(background);
    return;
  }
  background.push(peers.run(over.signal));
  const webhook = await HttpsServer.listen({
    certificates,
    port: options.ports.webhook,
    routes: webhookRoutes(view, metrics, options.onlyReadyNodes),
    warn,
  });
  const nodeServer = await HttpsServer.listen({
    certificates: own,
    port: options.ports.nodes,
    routes: { ...nodes.routes, "GET /v1/peer": (exchange) => peers.serve(exchange) },
    askCertificate: true,
    warn,
  });
  const auditServer = await HttpsServer.listen({
    certificates,
    port: options.ports.audit,
    routes: {},
    otherwise: (exchange) => audit.answer(exchange),
    askCertificate: true,
    warn,
  });
  const health = await serveHealth({
    port: options.ports.metrics,
    isReady: () => view.hasSynced && !signal.aborted,
    notReady: "not in sync with the API server yet, or about to end",
    metrics: async () => {
      metrics.feeds.set(nodes.nodes.length);
      return { type: metrics.registry.contentType, text: await metrics.registry.metrics() };
    },
  });
  log.info({ namespace, ports: options.ports }, "controller is up");

  const election = new Election({ client, namespace, name, identity: options.identity, warn });
  await election.run(signal, async (leading) => {
    log.info("leading");
    metrics.leader.set(1);
    await Promise.race([view.synced, aborted(leading)]);
    for (const secret of view.managed.values()) queue.add(keyOfSecret(secret));
    for (const shadow of view.shadows.values())
      ShadowController.originalKeys(keyOfSecret(shadow)).forEach((key) => queue.add(key));
    await Promise.all([
      queue.run(leading),
      keepTrust(client, options, certificates, leading),
      options.onlyReadyNodes ? keepReadyNodes({ client, namespace, warn }, leading) : undefined,
    ]);
    metrics.leader.set(0);
  });
  log.info("ending");
  await sleep(drainMs);
  over.abort();
  health.close();
  await Promise.all([webhook, nodeServer, auditServer].map((server) => server.close(graceMs)));
  await Promise.all(background);
  client.close();
}

function webhookRoutes(
  view: ClusterView,
  metrics: ControllerMetrics,
  onlyReadyNodes: boolean,
): Readonly<Record<string, Route>> {
  const answered = (kind: string, response: ReturnType<typeof admitSecret>): unknown => {
    metrics.admissions.inc({ kind, allowed: String(response.allowed) });
    return writeReview(response);
  };
  return {
    "POST /pods": async ({ json }) => answered("pod", await admitPod(reviewIn(await json()), view, onlyReadyNodes)),
    "POST /secrets": async ({ json }) => answered("secret", admitSecret(reviewIn(await json()))),
  };
}

/** @throws HttpError 400: a stranger's mistake is nothing for our log */
function reviewIn(data: unknown): AdmissionRequest {
  try {
    return readReview(data);
  } catch (error) {
    throw new HttpError(400, messageOf(error));
  }
}

/**
 * Keeps the `caBundle` of webhooks and audit API right. Also where certificates are provided and the chart says whom to
 * trust: a leader that leaves, and made its own, may have written after it.
 */
async function keepTrust(
  client: KubeClient,
  { webhooks, log }: ControllerOptions,
  certificates: CertificateSource,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const { identity } = certificates;
    if (identity !== undefined) {
      await Promise.all([
        trustWebhooks(client, webhooks, identity.trust),
        trustApi(client, `v1.${auditGroup}`, identity.trust),
      ]).catch((error: unknown) => log.warn(messageOf(error)));
    }
    await sleep(10_000, signal);
  }
}

/** Names under which a Service is reached in the cluster. */
export function serviceNames(name: string, namespace: string): readonly string[] {
  return [`${name}.${namespace}.svc`, `${name}.${namespace}.svc.cluster.local`, `${name}.${namespace}`];
}

function keyOfSecret({ metadata: { namespace, name } }: { metadata: { namespace?: string; name: string } }): string {
  return `${namespace}/${name}`;
}

async function until(condition: () => boolean, signal: AbortSignal): Promise<void> {
  while (!condition() && !signal.aborted) await sleep(50, signal);
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
