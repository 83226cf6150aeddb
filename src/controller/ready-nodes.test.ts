import assert from "node:assert/strict";
import { test } from "node:test";
import type { Node, Pod } from "../kube/objects.ts";
import { agentState, change, nodeState } from "./ready-nodes.ts";

const node = (label: string | undefined, ready: string): Node => ({
  metadata: { name: "n", ...(label && { labels: { "getkloak.io/agent": label } }) },
  status: { conditions: [{ type: "Ready", status: ready }] },
});

const cases: readonly [string, Node, boolean, "add" | "remove" | undefined][] = [
  ["an agent has become ready", node(undefined, "True"), true, "add"],
  ["it is as it must be", node("ready", "True"), true, undefined],
  ["somebody wrote another value", node("soon", "True"), true, "add"],
  ["the agent is not ready any more", node("ready", "True"), false, "remove"],
  [
    "the whole node is down: its pods must not be thrown out when it comes back",
    node("ready", "Unknown"),
    false,
    undefined,
  ],
  ["a new node", node(undefined, "False"), false, undefined],
];
for (const [name, from, agentReady, wanted] of cases)
  test(`label of a node: ${name}`, () => assert.equal(change(nodeState(from), agentReady), wanted));

test("an agent that is about to end is not ready", () => {
  const agent = (deletionTimestamp?: string): Pod => ({
    metadata: { name: "a", namespace: "kloak-system", ...(deletionTimestamp && { deletionTimestamp }) },
    spec: { nodeName: "n", containers: [] },
    status: { conditions: [{ type: "Ready", status: "True" }] },
  });
  assert.equal(agentState(agent())?.ready, true);
  assert.equal(agentState(agent("2026-11-25T00:00:00Z"))?.ready, false);
});
