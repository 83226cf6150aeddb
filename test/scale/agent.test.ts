/* An agent on a node of 110 cloaked pods that hold 2,000 Secrets between them. Prints what it takes. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { AuditRecord } from "../../src/audit/index.ts";
import { Callers, callScript } from "../cluster/callers.ts";
import { Cluster, requireCluster, until } from "../cluster/cluster.ts";
import { chart, secret } from "../cluster/fixtures.ts";
import { Upstream } from "../cluster/upstream.ts";
import { memoryOf } from "./process.ts";

requireCluster();
const secretCount = Number(process.env["KLOAK_SCALE_SECRETS"] ?? 2000);
const podCount = Number(process.env["KLOAK_SCALE_PODS"] ?? 110);
const budgetMb = 80;
const node = "node-a";
const namespace = "crowd";

let cluster: Cluster;
let upstream: Upstream;
before(async () => {
  cluster = await Cluster.up((line) => console.error(`# ${line}`));
  upstream = await Upstream.start("upstream.test", "10.240.0.1");
  const wait = ["--create-namespace", "--wait", "--timeout", "120s"];
  await cluster.helm("install", "kloak", chart, "-n", "kloak-system", ...wait);
});
after(async () => {
  await (upstream as Upstream | undefined)?.close();
  await (cluster as Cluster | undefined)?.down();
});

/** The agent of the node, as this machine sees it: it is in the node's network. */
function agentPid(): number {
  const network = (pid: string): string => readlinkSync(`/proc/${pid}/ns/net`);
  const home = network(readFileSync(join(cluster.node.data, `${node}.pid`), "utf8").trim());
  const found = readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return words[0] === "/usr/bin/node" && words.includes("agent") && network(pid) === home;
    } catch {
      return false; // it has ended since
    }
  });
  assert.equal(found.length, 1, `agents on ${node}: ${found.join(" ")}`);
  return Number(found[0]);
}

/** What the trail and the agent say of these pods, for the reader of a failure. */
async function saidOf(names: readonly string[]): Promise<string> {
  const path = `/apis/audit.getkloak.io/v1/namespaces/${namespace}/records`;
  const { items } = JSON.parse(await cluster.kubectl("get", "--raw", path)) as { items: AuditRecord[] };
  const about = items.filter(({ workload }) => workload?.kind === "pod" && names.includes(workload.name));
  const agents = ["-n", "kloak-system", "logs", "-l", "app.kubernetes.io/component=agent", "--tail=40"];
  return [...about.map((record) => JSON.stringify(record)), await cluster.kubectl(...agents)].join("\n");
}

const valueOf = (index: number): string => `sk-live-${String(index).padStart(12, "0")}`;
const seconds = (from: number): string => `${((performance.now() - from) / 1000).toFixed(1)} s`;

test(`${secretCount} Secrets in ${podCount} pods of a node: all are served, its agent stays within ${budgetMb} MB`, async () => {
  const callers = new Callers(cluster, upstream);
  await callers.workspace(namespace, valueOf(0));
  const alone = memoryOf(agentPid());
  console.error(`# an agent without work: ${JSON.stringify(alone)}`);

  const began = performance.now();
  const annotations = { "getkloak.io/hosts": `${upstream.host}:${upstream.port}`, "getkloak.io/ca": "roots" };
  const labels = { "getkloak.io/enabled": "true" };
  const secrets = Array.from({ length: secretCount }, (_, index) =>
    secret(namespace, `key-${index}`, { token: valueOf(index) }, { labels, annotations }),
  );
  for (let from = 0; from < secretCount; from += 250) await cluster.apply(...secrets.slice(from, from + 250));
  const shadows = ["-n", namespace, "get", "secrets", "-l", "getkloak.io/managed=true", "-o", "name"];
  const shadowCount = async () => (await cluster.kubectl(...shadows)).split("\n").filter(Boolean).length;
  await until("all shadows", async () => (await shadowCount()) === secretCount + 1, 180_000);
  console.error(`# ${secretCount} Secrets have their shadows after ${seconds(began)}`);

  // Each Secret is of one pod; a pod makes a request with the first of its own, and stays.
  const started = performance.now();
  const nameOf = (index: number): string => `pod-${index}`;
  const pods = Array.from({ length: podCount }, (_, index) => {
    const own = Array.from({ length: secretCount }, (_, i) => i).filter((i) => i % podCount === index);
    const env = own.map((of, i) => ({
      name: i === 0 ? "TOKEN" : `TOKEN_${i}`,
      valueFrom: { secretKeyRef: { name: `key-${of}`, key: "token" } },
    }));
    const command = ["sh", "-c", 'node -e "$CALL" && exec sleep infinity'];
    const made = callers.pod(namespace, nameOf(index), { env, command }, { COUNT: "1", CALL: callScript });
    return { ...made, spec: { ...made.spec, nodeSelector: { "kubernetes.io/hostname": node } } };
  });
  for (let from = 0; from < podCount; from += 10) {
    const some = pods.slice(from, from + 10);
    await cluster.apply(...some);
    const names = some.map(({ metadata }) => metadata.name);
    await until(
      `requests of ${names.join(" ")}`,
      async () => names.every((name) => callers.tokensOf(name).length === 1),
      120_000,
    );
  }
  const inert = pods
    .map(({ metadata }) => metadata.name)
    .filter((name, at) => callers.tokensOf(name)[0] !== valueOf(at));
  assert.deepEqual(inert, [], inert.length === 0 ? "" : `what is said of them: ${await saidOf(inert)}`);
  console.error(`# ${podCount} pods are served after ${seconds(started)}: ${JSON.stringify(memoryOf(agentPid()))}`);

  await delay(15_000); // it gives back what it has needed for a change some seconds after
  const { residentMb, peakMb } = memoryOf(agentPid());
  console.error(`# then: ${residentMb} MB resident, ${peakMb} MB at most so far`);
  assert.ok(residentMb <= budgetMb, `${residentMb} MB resident, ${peakMb} MB at most`);
});
