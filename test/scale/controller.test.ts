/* The controller with 5,000 managed Secrets and 10,000 cloaked pods, at a real API server. Prints what it takes. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { projectRoot } from "../../src/dataplane/native.ts";
import type { KubeObject, Secret } from "../../src/kube/objects.ts";
import { type Resource, resources } from "../../src/kube/resource.ts";
import { imageFlags, requireCluster, until } from "../cluster/cluster.ts";
import { decode, encode, secret } from "../cluster/fixtures.ts";
import { ApiServer, freePorts } from "./api-server.ts";
import { memoryOf } from "./process.ts";

requireCluster();
const secretCount = Number(process.env["KLOAK_SCALE_SECRETS"] ?? 5000);
const podCount = Number(process.env["KLOAK_SCALE_PODS"] ?? 10_000);
const namespaceCount = 50;
const nodeCount = 100;
const budgetMb = 200;

let api: ApiServer;
let controller: ChildProcess | undefined;
before(async () => {
  api = await ApiServer.start();
});
after(async () => {
  if (controller?.exitCode === null) {
    const ended = once(controller, "exit");
    controller.kill("SIGKILL");
    await ended;
  }
  await (api as ApiServer | undefined)?.stop();
});

const namespaceOf = (index: number): string => `team-${index % namespaceCount}`;

/** A pod as its controller and the API server leave it: most of it is nothing to us. */
function podObject(index: number): object {
  const namespace = namespaceOf(index);
  const container = (name: string) => ({
    name,
    image: "registry.test/team/service:v1.2.3",
    env: [
      { name: "TOKEN", valueFrom: { secretKeyRef: { name: `key-${index % secretCount}-kloak`, key: "token" } } },
      ...Array.from({ length: 10 }, (_, i) => ({
        name: `SETTING_${i}`,
        value: `some value of the service, number ${i}`,
      })),
    ],
    resources: { requests: { cpu: "100m", memory: "128Mi" }, limits: { memory: "256Mi" } },
    livenessProbe: { httpGet: { path: "/healthz", port: 8080 }, periodSeconds: 10 },
    volumeMounts: [{ name: "tmp", mountPath: "/tmp" }],
  });
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      namespace,
      name: `service-${index}-7d9f8b6c5d-x${index}`,
      labels: { app: `service-${index}`, "pod-template-hash": "7d9f8b6c5d", team: namespace },
      annotations: { "getkloak.io/enabled": "true", "prometheus.io/scrape": "true" },
    },
    spec: {
      nodeName: `node-${index % nodeCount}`,
      containers: [container("service"), container("helper")],
      volumes: [{ name: "tmp", emptyDir: {} }],
    },
  };
}

async function createAll(resource: Resource, count: number, make: (index: number) => object): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) {
      const object = make(index) as KubeObject;
      await api.client.create(resource, object.metadata.namespace, object);
    }
  };
  await Promise.all(Array.from({ length: 32 }, worker));
}

async function shadows(): Promise<readonly Secret[]> {
  const found: Secret[] = [];
  let next: string | undefined;
  do {
    const query = { labelSelector: "getkloak.io/managed=true", limit: "1000", continue: next };
    const page = await api.client.list<Secret>(resources.secrets, undefined, query);
    found.push(...page.items);
    next = page.metadata.continue === "" ? undefined : page.metadata.continue;
  } while (next !== undefined);
  return found;
}

const valueOf = (index: number, turn = 0): string => `sk-live-${turn}-${String(index).padStart(8, "0")}`;
const seconds = (from: number): string => `${((performance.now() - from) / 1000).toFixed(1)} s`;

test(`${secretCount} Secrets and ${podCount} pods: converges, within ${budgetMb} MB`, async () => {
  const namespaces = Array.from({ length: namespaceCount }, (_, index) => namespaceOf(index));
  for (const name of ["kloak-system", ...namespaces])
    await api.client.create(resources.namespaces, undefined, {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name },
    });
  const began = performance.now();
  await createAll(resources.secrets, secretCount, (i) => secret(namespaceOf(i), `key-${i}`, { token: valueOf(i) }));
  await createAll(resources.pods, podCount, podObject);
  console.error(`# ${secretCount} Secrets and ${podCount} pods made in ${seconds(began)}`);

  const ports = (await freePorts(4)).map(String);
  const options = ["webhook", "nodes", "audit", "metrics"].flatMap((name, i) => [`--${name}-port`, ports[i] ?? ""]);
  const started = performance.now();
  const child = spawn(join(projectRoot, "scripts/node"), [...imageFlags, "bin/start.mjs", "controller", ...options], {
    cwd: projectRoot,
    env: { ...process.env, KUBECONFIG: api.kubeconfig },
    stdio: ["ignore", "pipe", "inherit"],
  });
  controller = child;
  child.stdout.pipe(createWriteStream(join(api.folder, "controller.log")));
  const pid = child.pid ?? 0;
  const isReady = async () => (await fetch(`http://127.0.0.1:${ports[3]}/readyz`)).ok;
  await until("its copies", async () => child.exitCode === null && (await isReady().catch(() => false)), 120_000);
  console.error(`# in sync after ${seconds(started)}: ${JSON.stringify(memoryOf(pid))}`);
  await until("all shadows", async () => (await shadows()).length === secretCount, 300_000);
  console.error(`# all shadows after ${seconds(started)}: ${JSON.stringify(memoryOf(pid))}`);

  const placeholders = new Set((await shadows()).map(({ data }) => decode(data?.["token"])));
  assert.equal(placeholders.size, secretCount, "a placeholder was given twice");
  const rotated = performance.now();
  const changed = Math.min(500, secretCount);
  for (let i = 0; i < changed; i++)
    await api.client.patch(resources.secrets, namespaceOf(i), `key-${i}`, [
      { op: "add", path: "/data/token", value: encode(`${valueOf(i, 1)}-longer`) },
    ]);
  await until(
    "new placeholders",
    async () => {
      const lengths = (await shadows()).map(({ data }) => decode(data?.["token"]).length);
      return lengths.filter((length) => length === valueOf(0, 1).length + 7).length === changed;
    },
    120_000,
  );
  console.error(`# ${changed} values of another shape after ${seconds(rotated)}: ${JSON.stringify(memoryOf(pid))}`);
  const { residentMb, peakMb } = memoryOf(pid);
  assert.ok(peakMb <= budgetMb, `${residentMb} MB resident, ${peakMb} MB at most`);
});
