/*
 * Label `getkloak.io/agent: ready` on nodes, which cloaked pods ask for in their node selector (src/webhook/pod.ts): on a
 * node whose agent is not ready a pod would send placeholders on what it opens first. A label and no taint: nothing but
 * cloaked pods depends on it, DaemonSets that tolerate everything are held too, and when Kloak is removed with a node
 * unready, the cluster's other pods do not miss it.
 */
import type { KubeClient } from "../kube/client.ts";
import { hasStatus } from "../kube/error.ts";
import { Informer } from "../kube/informer.ts";
import { pointer } from "../kube/json-patch.ts";
import type { Condition, KubeObject, Node, Pod } from "../kube/objects.ts";
import { KeyedQueue } from "../kube/queue.ts";
import { resources } from "../kube/resource.ts";
import { readyNode } from "../shadow/marks.ts";

export interface ReadyNodesOptions {
  readonly client: KubeClient;
  /** Of the agents. */
  readonly namespace: string;
  readonly warn: (message: string) => void;
}

/** What is kept of a node. */
export interface NodeState extends KubeObject {
  readonly labelled: boolean;
  readonly ready: boolean;
}

/** What is kept of an agent's pod. */
export interface AgentState extends KubeObject {
  readonly node: string;
  readonly ready: boolean;
}

const agents = "app.kubernetes.io/name=kloak,app.kubernetes.io/component=agent";

export function nodeState({ metadata: { name, resourceVersion, labels }, status }: Node): NodeState {
  return {
    metadata: { name, ...(resourceVersion && { resourceVersion }) },
    labelled: labels?.[readyNode.label] === readyNode.value,
    ready: isTrue(status?.conditions, "Ready"),
  };
}

export function agentState({ metadata, spec, status }: Pod): AgentState | undefined {
  const { name, namespace = "", resourceVersion, deletionTimestamp } = metadata;
  if (spec.nodeName === undefined) return undefined;
  return {
    metadata: { name, namespace, ...(resourceVersion && { resourceVersion }) },
    node: spec.nodeName,
    ready: deletionTimestamp === undefined && isTrue(status?.conditions, "Ready"),
  };
}

/**
 * What is to be done about a node's label. One that is down keeps it: the scheduler passes it by as it is, and a kubelet
 * that begins anew throws out pods whose selectors its node does not meet.
 */
export function change({ labelled, ready }: NodeState, agentReady: boolean): "add" | "remove" | undefined {
  if (labelled === agentReady) return undefined;
  if (agentReady) return "add";
  return ready ? "remove" : undefined;
}

/** Keeps the label right until `signal` is aborted. One replica does this, the leader. */
export async function keepReadyNodes(options: ReadyNodesOptions, signal: AbortSignal): Promise<void> {
  const { client, namespace, warn } = options;
  const nodes: Informer<Node, NodeState> = new Informer<Node, NodeState>({
    client,
    warn,
    resource: resources.nodes,
    keep: nodeState,
    changed: (name) => queue.add(name),
  });
  const running: Informer<Pod, AgentState> = new Informer<Pod, AgentState>({
    client,
    warn,
    namespace,
    resource: resources.pods,
    labelSelector: agents,
    keep: agentState,
    changed: (_, now, before) => {
      for (const state of [now, before]) if (state !== undefined) queue.add(state.node);
    },
  });
  const queue = new KeyedQueue({
    work: async (name) => {
      const node = nodes.get(name);
      if (node === undefined) return;
      const agentReady = [...running.values()].some((agent) => agent.node === name && agent.ready);
      const op = change(node, agentReady);
      if (op === undefined) return;
      const path = pointer("metadata", "labels", readyNode.label);
      const operation = op === "add" ? { op, path, value: readyNode.value } : { op, path };
      await client.patch(resources.nodes, undefined, name, [operation]).catch((error: unknown) => {
        if (!hasStatus(error, 404)) throw error; // the node has gone
      });
    },
    failed: (name, error) => warn(`node ${name}: ${error instanceof Error ? error.message : String(error)}`),
    workers: 2,
  });
  const informed = Promise.all([nodes.run(signal), running.run(signal)]);
  await Promise.race([Promise.all([nodes.synced, running.synced]), informed]);
  await Promise.all([informed, queue.run(signal)]);
}

function isTrue(conditions: readonly Condition[] | undefined, type: string): boolean {
  return conditions?.some((condition) => condition.type === type && condition.status === "True") === true;
}
