/* What a user of the chart meets: README's commands, the demo, nodes that come and go, upgrades, certificates, the end. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { projectRoot } from "../../src/dataplane/native.ts";
import type { ConfigMap, Node, Secret } from "../../src/kube/objects.ts";
import { Callers } from "./callers.ts";
import { Cluster, requireCluster, until } from "./cluster.ts";
import { chart, decode, secret, tokenOf } from "./fixtures.ts";
import { Upstream } from "./upstream.ts";

requireCluster();
const value = "sk-live-xyz123abc456";
const system = ["-n", "kloak-system"] as const;
let cluster: Cluster;
let upstream: Upstream;
let callers: Callers;

before(async () => {
  cluster = await Cluster.up((line) => console.error(`# ${line}`));
  upstream = await Upstream.start("upstream.test", "10.240.0.1");
  callers = new Callers(cluster, upstream);
  // The image that README's example names: no registry can be reached from here.
  for (const node of ["node-a", "node-b"]) {
    const tagged = ["localhost/node:1", "docker.io/library/node:24-slim"];
    const { status, stderr } = await cluster.onNode(node, "ctr", "-n", "k8s.io", "images", "tag", ...tagged);
    assert.equal(status, 0, stderr);
  }
});
after(async () => {
  await (upstream as Upstream | undefined)?.close();
  await (cluster as Cluster | undefined)?.down();
});

/** The lines of the fenced shell blocks below a heading of README. */
function commandsOf(heading: string): string[] {
  const text = readFileSync(join(projectRoot, "README.md"), "utf8");
  const section = text.split(/^## /m).find((each) => each.startsWith(`${heading}\n`)) ?? "";
  const blocks = section.matchAll(/^```sh\n(.*?)^```$/gms);
  return [...blocks].flatMap(([, block = ""]) => block.split("\n").filter((line) => line !== ""));
}

/** What a line of README is to print. */
const wanted: readonly [RegExp, RegExp][] = [
  [/^helm install/, /helm test kloak -n kloak-system/],
  [/^helm test/, /Phase: +Succeeded/],
  [/logs demo-test/, /ok {6}demo-api\.kloak-demo\.svc received the key(.|\n)*ok {6}and the refusal, with its reason/],
  [/logs deployment\/demo-client/, /API_KEY=.*kloak:/],
  [/logs deployment\/demo-server/, /demo-api\.kloak-demo\.svc.*Bearer sk-demo-/],
  [/^kubectl apply/, /created/],
  [/ wait /, /condition met/],
  [/echo \$OPENAI_API_KEY/, /^kloak:/],
  [/get secret/, /openai-api-key-kloak/],
];

test("README's commands, each as it stands there", async () => {
  const commands = commandsOf("On Kubernetes");
  assert.equal(commands.length, wanted.length, commands.join("\n"));
  for (const [index, [command, output]] of wanted.entries()) {
    const line = commands[index] ?? "";
    assert.match(line, command);
    const { stdout, stderr, status } = await cluster.sh(line);
    assert.equal(status, 0, `${line}\n${stdout}${stderr}`);
    assert.match(stdout, output, line);
  }
});

test("the demo tells it all: what the pod holds, what the server received, what came of the wrong host", async () => {
  const key = decode((await cluster.get<Secret>("-n", "kloak-demo", "secret", "demo-key")).data?.["token"]);
  assert.match(key, /^sk-demo-/);
  const log = (name: string) => cluster.kubectl("-n", "kloak-demo", "logs", `deployment/${name}`);
  for (const line of [
    /^This pod's environment: {2}API_KEY=\S*kloak:/m,
    /demo-api\.kloak-demo\.svc\/v1\/models {2}200: the server received the key/,
    /demo-elsewhere\.kloak-demo\.svc\/v1\/models {2}401: the server received a placeholder/,
    /audit: substituted kloak-demo\/demo-key\/token to demo-api\.kloak-demo\.svc/,
    /audit: refused kloak-demo\/demo-key\/token to demo-elsewhere\.kloak-demo\.svc: host-not-allowed/,
  ])
    await until(`${line} in the client's log`, async () => line.test(await log("demo-client")));
  assert.ok(!(await log("demo-client")).includes(key));
  const told = await log("demo-server");
  assert.match(told, /demo-elsewhere\S+ {2}Authorization: Bearer kloak:/);
  assert.ok(told.split("\n").some((line) => line.includes("demo-api") && line.includes(`Bearer ${key}`)));
  assert.ok(!told.split("\n").some((line) => line.includes("demo-elsewhere") && line.includes(key)));
});

/** Agents on this node alone; undefined: on all. */
async function agentsOn(node: string | undefined): Promise<void> {
  const nodeSelector = { "kubernetes.io/hostname": node ?? null };
  const patch = JSON.stringify({ spec: { template: { spec: { nodeSelector } } } });
  await cluster.kubectl(...system, "patch", "daemonset", "kloak-agent", "-p", patch);
  await cluster.kubectl(...system, "rollout", "status", "daemonset/kloak-agent", "--timeout=90s");
}

const label = async (node: string) =>
  (await cluster.get<Node>("node", node)).metadata.labels?.["getkloak.io/agent"] ?? "";

/** A pod for one node, as its owner says it, with its scheduler or without. */
function podOn(node: string, name: string, spec: object = {}, metadata: object = {}) {
  const made = callers.pod("late", name, tokenOf("key"));
  const placed = { ...made.spec, nodeSelector: { "kubernetes.io/hostname": node }, ...spec };
  return { ...made, metadata: { ...made.metadata, ...metadata }, spec: placed };
}

test("a node takes no cloaked pod before its agent is ready, by whatever way; it takes others", async () => {
  await callers.workspace("late", value);
  for (const node of ["node-a", "node-b"]) assert.equal(await label(node), "ready");
  await agentsOn("node-a");
  await until("node-b to have no label", async () => (await label("node-b")) === "");
  const tolerant = { tolerations: [{ operator: "Exists" }] };
  await cluster.apply(
    podOn("node-b", "waits", tolerant),
    podOn("node-b", "forced", { nodeName: "node-b" }),
    podOn("node-b", "plain", {}, { labels: { "getkloak.io/enabled": "false" } }),
  );
  const phase = async (name: string) => (await callers.phaseOf("late", name))?.phase;
  await until("the pod that is not cloaked", async () => (await phase("plain")) === "Running");
  await until("the kubelet's refusal", async () => (await phase("forced")) === "Failed");
  assert.equal(await phase("waits"), "Pending");
  await agentsOn(undefined);
  await until("node-b's label", async () => (await label("node-b")) === "ready");
  await until("requests of the pod that waited", async () => callers.tokensOf("waits").length >= 3);
  assert.deepEqual([...new Set(callers.tokensOf("waits"))], [value]);
  await cluster.kubectl("-n", "late", "delete", "pod", "waits", "forced", "plain");
});

async function upgrade(...values: readonly string[]): Promise<void> {
  const set = values.flatMap((each) => ["--set", each]);
  await cluster.helm("upgrade", "kloak", chart, ...system, "--reuse-values", ...set, "--wait", "--timeout", "150s");
}

test("pods that ran before their agent was there have an Event that says what that means", async () => {
  await upgrade("webhook.onlyReadyNodes=false", "demo.enabled=false");
  await agentsOn("node-a");
  await cluster.apply(podOn("node-b", "early"));
  await until("its requests", async () => callers.tokensOf("early").length >= 3);
  assert.ok(callers.tokensOf("early").every((token) => token.startsWith("kloak:")));
  await agentsOn(undefined);
  const events = ["-n", "late", "get", "events", "--field-selector", "involvedObject.name=early"];
  await until("an Event", async () =>
    /Unprotected.*ran before the agent/s.test(
      await cluster.kubectl(...events, "-o", "jsonpath={range .items[*]}{.reason} {.message}{end}"),
    ),
  );
  await cluster.kubectl("-n", "late", "delete", "pod", "early");
  await upgrade("webhook.onlyReadyNodes=true");
  for (const node of ["node-a", "node-b"]) await until(`label of ${node}`, async () => (await label(node)) === "ready");
});

const loaded = ["load-a", "load-b"] as const;

/** Does something while pods of both nodes call; then each has called on, with the secret in every request. */
async function underLoad(what: () => Promise<void>, marks: readonly string[] = loaded): Promise<void> {
  const before = marks.map((mark) => callers.tokensOf(mark).length);
  await what();
  for (const [index, mark] of marks.entries()) {
    const start = before[index] ?? 0;
    const end = callers.tokensOf(mark).length;
    await until(`more requests of ${mark}`, async () => callers.tokensOf(mark).length > end + 20);
    assert.deepEqual([...new Set(callers.tokensOf(mark).slice(start))], [value], mark);
    const log = await cluster.kubectl("-n", "load", "logs", mark);
    assert.ok(!log.includes("failed"), log.slice(-500));
  }
}

test("an upgrade under load: no request fails or leaves with a placeholder", async () => {
  await callers.workspace("load", value);
  for (const [index, mark] of loaded.entries()) {
    const made = callers.pod("load", mark, tokenOf("key"));
    const nodeSelector = { "kubernetes.io/hostname": `node-${"ab"[index]}` };
    await cluster.apply({ ...made, spec: { ...made.spec, nodeSelector } });
    await until(`requests of ${mark}`, async () => callers.tokensOf(mark).length > 10);
  }
  await underLoad(() => upgrade("log.level=debug"));
});

test("packets of cloaked pods are steered by connection, and no agent says that it could not", async () => {
  for (const node of ["node-a", "node-b"]) {
    const masks = await cluster.onNode(node, "sh", "-c", "cat /sys/class/net/veth*/queues/rx-0/rps_cpus");
    assert.match(masks.stdout, /[1-9a-f]/, `${node}: ${masks.stdout}${masks.stderr}`);
  }
  const logs = await cluster.kubectl(...system, "logs", "-l", "app.kubernetes.io/component=agent", "--tail=-1");
  assert.ok(!logs.includes("uploads may be slow"), logs);
});

test("somebody wipes the state of a node's agent in bpffs under load: it is put back, and the next agent goes on", async () => {
  await underLoad(async () => {
    await cluster.onNode("node-a", "rm", "-rf", "/sys/fs/bpf/kloak");
    await until("the state", async () => (await cluster.onNode("node-a", "ls", "/sys/fs/bpf/kloak/v1")).status === 0);
  });
  await underLoad(async () => {
    await cluster.kubectl(...system, "delete", "pods", "-l", "app.kubernetes.io/component=agent", "--wait");
    await cluster.kubectl(...system, "rollout", "status", "daemonset/kloak-agent", "--timeout=90s");
  });
});

test("a node is drained and comes back: controller and pods move, the other node's pods call on", async () => {
  await underLoad(async () => {
    const drained = await cluster.sh(
      "kubectl drain node-b --ignore-daemonsets --force --delete-emptydir-data --timeout=90s",
    );
    assert.equal(drained.status, 0, drained.stderr);
  }, ["load-a"]);
  const made = callers.pod("load", "moved", tokenOf("key"), { COUNT: "5" });
  await cluster.apply(made);
  await until("requests of a pod that starts meanwhile", async () => callers.tokensOf("moved").length >= 5);
  assert.deepEqual([...new Set(callers.tokensOf("moved"))], [value]);
  await cluster.kubectl("uncordon", "node-b");
});

/** Metric of the agent of a node. */
async function gauge(node: string, name: string): Promise<number> {
  const address = node === "node-a" ? "10.240.0.11" : "10.240.0.12";
  const { stdout } = await cluster.sh(`curl -sf http://${address}:9464/metrics`);
  return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(stdout)?.[1] ?? Number.NaN);
}

test("a namespace is deleted under load: its pods end, and nothing of them is left with the agents", async () => {
  await cluster.kubectl("delete", "namespace", "late", "shop", "--timeout=60s");
  await underLoad(async () => {
    const bystander = callers.pod("load", "bystander", tokenOf("key"), { COUNT: "3" });
    await cluster.apply(bystander);
    await until("its requests", async () => callers.tokensOf("bystander").length >= 3);
  }, ["load-a"]);
  await cluster.kubectl("-n", "load", "delete", "pod", "moved", "bystander", "--ignore-not-found");
  await until("one workload on node-a", async () => (await gauge("node-a", "kloak_agent_workloads")) === 1);
});

test("certificates that are provided: webhooks and audit API answer with them", async () => {
  const folder = mkdtempSync(join(tmpdir(), "kloak-provided-"));
  try {
    const make = (line: string) => execFileSync("sh", ["-ec", line], { cwd: folder, stdio: "ignore" });
    make(
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=provided -keyout ca.key -out ca.crt",
    );
    make(
      "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=kloak -addext subjectAltName=DNS:kloak-controller.kloak-system.svc -keyout tls.key -out csr",
    );
    make("openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -days 2 -copy_extensions copy -out tls.crt");
    const files = ["tls.crt", "tls.key", "ca.crt"].map((name) => `--from-file=${join(folder, name)}`);
    await cluster.kubectl(...system, "create", "secret", "generic", "provided", ...files);
    const bundle = ["--set-file", `certificates.provided.caBundle=${join(folder, "ca.crt")}`];
    const mode = ["--set", "certificates.mode=provided,certificates.provided.secretName=provided"];
    await underLoad(async () => {
      await cluster.helm(
        "upgrade",
        "kloak",
        chart,
        ...system,
        "--reuse-values",
        ...mode,
        ...bundle,
        "--force-conflicts", // `caBundle` was the controller's own
        "--wait",
        "--timeout",
        "150s",
      );
    }, ["load-a"]);
  } finally {
    rmSync(folder, { recursive: true });
  }
  const wrong = secret("load", "wrong", { token: value }, { labels: { "getkloak.io/enabled": "true" } });
  await until("the webhook's own word", async () => /hosts/.test((await cluster.tryApply(wrong)).stderr));
  const path = "/apis/audit.getkloak.io/v1/namespaces/load/records";
  await until("the audit API", async () => (await cluster.tryKubectl("get", "--raw", path)).status === 0);
  // Agents go on with the controller's own authority.
  const trust = await cluster.get<ConfigMap>(...system, "configmap", "kloak-controller-trust");
  assert.ok(trust.data?.["ca.crt"]);
  await cluster.apply(callers.pod("load", "provided", tokenOf("key"), { COUNT: "3" }));
  await until("requests of a new pod", async () => callers.tokensOf("provided").length >= 3);
  assert.deepEqual([...new Set(callers.tokensOf("provided"))], [value]);
});

test("cert-manager: what would be asked of it, and who is told to trust it (it cannot run here)", async () => {
  const mode = ["--set", "certificates.mode=certManager"];
  await assert.rejects(() => cluster.helm("template", "kloak", chart, ...mode), /issuerRef is needed/);
  const issuer = [
    "--set",
    "certificates.certManager.issuerRef.name=internal,certificates.certManager.issuerRef.kind=ClusterIssuer",
  ];
  const text = await cluster.helm("template", "kloak", chart, ...system, ...mode, ...issuer);
  const document = (kind: string) =>
    text
      .split(/^---$/m)
      .filter((each) => new RegExp(`^kind: ${kind}$`, "m").test(each))
      .join("\n");
  const certificate = document("Certificate");
  assert.match(certificate, /^apiVersion: cert-manager\.io\/v1$/m);
  assert.match(certificate, /secretName: kloak-controller-tls/);
  assert.match(certificate, /- kloak-controller\.kloak-system\.svc$/m);
  assert.match(certificate, /issuerRef:\s+kind: ClusterIssuer\s+name: internal/);
  for (const kind of ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "APIService"])
    assert.match(document(kind), /cert-manager\.io\/inject-ca-from: kloak-system\/kloak-controller/, kind);
  assert.match(document("Deployment"), /secretName: kloak-controller-tls/);
});

test("uninstalled under load: pods that run go on, new ones get what they were given before, and nothing is left", async () => {
  await underLoad(async () => {
    await cluster.helm("uninstall", "kloak", ...system, "--wait");
    await until("the agents' end", async () => (await cluster.kubectl(...system, "get", "pods", "-o", "name")) === "");
  }, ["load-a"]);
  await cluster.apply(callers.pod("load", "open", tokenOf("key"), { COUNT: "3" }));
  await until("requests of a new pod", async () => callers.tokensOf("open").length >= 3);
  assert.deepEqual([...new Set(callers.tokensOf("open"))], [value]);
  const kinds = "clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingwebhookconfiguration,apiservice";
  const left = await cluster.kubectl("get", kinds, "-A", "-o", "name");
  assert.deepEqual(
    left.split("\n").filter((name) => name.includes("kloak")),
    [],
  );
  assert.equal((await cluster.tryKubectl("get", "namespace", "kloak-demo")).status, 1);
});

test("and what the kernel still keeps goes as docs/kubernetes.md says", async () => {
  await cluster.kubectl("delete", "namespace", "load", "--timeout=60s");
  for (const node of ["node-a", "node-b"]) {
    assert.equal((await cluster.onNode(node, "test", "-d", "/sys/fs/bpf/kloak/v1/maps")).status, 0);
    const removed = await cluster.onNode(node, "rm", "-rf", "/sys/fs/bpf/kloak", "/run/kloak");
    assert.equal(removed.status, 0, removed.stderr);
    assert.equal((await cluster.onNode(node, "test", "-e", "/sys/fs/bpf/kloak")).status, 1);
  }
});
