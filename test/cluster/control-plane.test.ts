/* Controller, webhooks and chart on a real API server, scheduler, kubelet, containerd and etcd. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import type { AuditRecord } from "../../src/audit/index.ts";
import type { Pod, Secret } from "../../src/kube/objects.ts";
import { Cluster, requireCluster, until } from "./cluster.ts";
import { chart, decode, encode, pod, secret, tokenOf } from "./fixtures.ts";

requireCluster();
let cluster: Cluster;
const value = "sk-live-xyz123abc456";

before(async () => {
  cluster = await Cluster.up((line) => console.error(`# ${line}`));
  await cluster.helm(
    "install",
    "kloak",
    chart,
    "-n",
    "kloak-system",
    "--create-namespace",
    "--wait",
    "--timeout",
    "90s",
  );
});
after(() => (cluster as Cluster | undefined)?.down());

const tokenEnv = tokenOf("stripe");

async function shadowOf(namespace: string, name: string): Promise<Secret> {
  let found: Secret | undefined;
  await until(`the shadow of ${namespace}/${name}`, async () => {
    const { stdout, status } = await cluster.tryKubectl(
      "-n",
      namespace,
      "get",
      "secret",
      `${name}-kloak`,
      "-o",
      "json",
    );
    if (status === 0) found = JSON.parse(stdout) as Secret;
    return found !== undefined;
  });
  return found as Secret;
}

async function eventsOf(namespace: string, name: string): Promise<string> {
  return cluster.kubectl(
    "-n",
    namespace,
    "get",
    "events",
    "--field-selector",
    `involvedObject.name=${name}`,
    "-o",
    'jsonpath={range .items[*]}{.reason}: {.message}{"\\n"}{end}',
  );
}

test("a managed Secret has a shadow of the same shape, kept right and removed with it; the original is never written", async () => {
  await cluster.namespace("shadows");
  await cluster.apply(secret("shadows", "stripe", { token: value }));
  const first = await shadowOf("shadows", "stripe");
  const original = await cluster.get<Secret>("-n", "shadows", "secret", "stripe");
  assert.match(decode(first.data?.["token"]), /^kloak:/);
  assert.equal(decode(first.data?.["token"]).length, value.length);
  await cluster.kubectl(
    "-n",
    "shadows",
    "patch",
    "secret",
    "stripe-kloak",
    "-p",
    `{"data":{"token":"${encode("changed by hand")}"}}`,
  );
  await until("the shadow to be put right", async () =>
    decode((await shadowOf("shadows", "stripe")).data?.["token"]).startsWith("kloak:"),
  );
  await cluster.apply(secret("shadows", "stripe", { token: "sk-live-zyx321cba654", more: "another-value-here" }));
  await until("the new key", async () => (await shadowOf("shadows", "stripe")).data?.["more"] !== undefined);
  await cluster.kubectl("-n", "shadows", "delete", "secret", "stripe-kloak");
  await shadowOf("shadows", "stripe");
  const managers = await cluster.kubectl(
    "-n",
    "shadows",
    "get",
    "secret",
    "stripe",
    "--show-managed-fields",
    "-o",
    "jsonpath={.metadata.managedFields[*].manager}",
  );
  assert.ok(!managers.includes("kloak"), `the original was written by ${managers}`);
  assert.equal(original.metadata.ownerReferences, undefined);
  await cluster.kubectl("-n", "shadows", "delete", "secret", "stripe");
  await until(
    "the shadow's end",
    async () => (await cluster.tryKubectl("-n", "shadows", "get", "secret", "stripe-kloak")).status !== 0,
  );
});

test("every mistake has an Event on the Secret that says what to do", async () => {
  await cluster.namespace("mistakes");
  await cluster.apply(
    secret("mistakes", "short", { token: "short" }),
    { apiVersion: "v1", kind: "Secret", metadata: { namespace: "mistakes", name: "taken-kloak" } },
    secret("mistakes", "taken", { token: value }),
  );
  await until("an Event about the short value", async () =>
    (await eventsOf("mistakes", "short")).includes("ValueTooShort"),
  );
  await until("an Event about the name", async () => (await eventsOf("mistakes", "taken")).includes("ShadowNameTaken"));
  const stranger = await cluster.get<Secret>("-n", "mistakes", "secret", "taken-kloak");
  assert.equal(stranger.data, undefined, "another's Secret was written");
});

test("the webhook refuses wrong settings, with the remedy", async () => {
  await cluster.namespace("refusals");
  const cases: readonly [object, RegExp][] = [
    [{ labels: { "getkloak.io/enabled": "true" } }, /hosts/],
    [{ labels: { "getkloak.io/enabled": "true" }, annotations: { "getkloak.io/hosts": "no host" } }, /no host/],
    [
      { labels: { "getkloak.io/enabled": "true", "getkloak.io/hosts": "a.test", "getkloak.io/hots": "a" } },
      /did you mean/,
    ],
  ];
  for (const [metadata, message] of cases) {
    const { status, stderr } = await cluster.tryApply(secret("refusals", "wrong", { token: value }, metadata));
    assert.notEqual(status, 0);
    assert.match(stderr, message);
  }
});

test("pods of a cloaked namespace get placeholders by every way, also before the shadow exists; others the real value", async () => {
  await cluster.namespace("cloaked", { "getkloak.io/enabled": "true" });
  await cluster.namespace("open");
  const everyWay = {
    ...tokenEnv,
    envFrom: [{ prefix: "ALL_", secretRef: { name: "stripe" } }],
    volumeMounts: [
      { name: "plain", mountPath: "/plain" },
      { name: "projected", mountPath: "/projected" },
    ],
  };
  const volumes = [
    { name: "plain", secret: { secretName: "stripe" } },
    { name: "projected", projected: { sources: [{ secret: { name: "stripe" } }] } },
  ];
  for (const namespace of ["cloaked", "open"]) {
    const made = pod(namespace, "p", everyWay);
    await cluster.apply(secret(namespace, "stripe", { token: value }), { ...made, spec: { ...made.spec, volumes } });
  }
  await cluster.kubectl("-n", "cloaked", "wait", "--for=condition=Ready", "pod/p", "--timeout=60s");
  await cluster.kubectl("-n", "open", "wait", "--for=condition=Ready", "pod/p", "--timeout=60s");
  const shadow = decode((await shadowOf("cloaked", "stripe")).data?.["token"]);
  const script = 'echo "$TOKEN $ALL_token $(cat /plain/token) $(cat /projected/token)"';
  const seen = async (namespace: string) =>
    (await cluster.kubectl("-n", namespace, "exec", "p", "--", "sh", "-c", script)).trim();
  assert.equal(await seen("cloaked"), [shadow, shadow, shadow, shadow].join(" "));
  assert.equal(await seen("open"), [value, value, value, value].join(" "));
  const cloaked = await cluster.get<Pod>("-n", "cloaked", "pod", "p");
  assert.equal(cloaked.metadata.annotations?.["getkloak.io/enabled"], "true");
});

test("what would defeat a cloak is refused with its reason, and can be allowed by name", async () => {
  const privileged = { securityContext: { privileged: true } };
  const refused = await cluster.tryApply(pod("cloaked", "privileged", privileged));
  assert.notEqual(refused.status, 0);
  assert.match(refused.stderr, /privileged.*getkloak\.io\/allow/s);
  await cluster.apply(pod("cloaked", "allowed", privileged, { annotations: { "getkloak.io/allow": "privileged" } }));
  await cluster.apply(pod("cloaked", "uncloaked", privileged, { labels: { "getkloak.io/enabled": "false" } }));
});

test("with no controller a cloaked namespace starts no pod; others, and Kloak's own, do", async () => {
  await cluster.kubectl("-n", "kloak-system", "scale", "deployment/kloak-controller", "--replicas=0");
  await until(
    "no controller",
    async () =>
      (await cluster.kubectl(
        "-n",
        "kloak-system",
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/component=controller",
        "-o",
        "name",
      )) === "",
  );
  const refused = await cluster.tryApply(pod("cloaked", "late", tokenEnv));
  assert.notEqual(refused.status, 0);
  assert.match(refused.stderr, /namespaces\.pods\.getkloak\.io/);
  await cluster.apply(pod("open", "late", tokenEnv));
  await cluster.kubectl("-n", "kloak-system", "scale", "deployment/kloak-controller", "--replicas=2");
  await cluster.kubectl("-n", "kloak-system", "rollout", "status", "deployment/kloak-controller", "--timeout=120s");
  await until("the webhook", async () => (await cluster.tryApply(pod("cloaked", "late", tokenEnv))).status === 0);
});

test("each account can do what it must, and no more", async () => {
  const can = async (account: string, ...what: readonly string[]) =>
    (
      await cluster.tryKubectl("auth", "can-i", ...what, `--as=system:serviceaccount:kloak-system:${account}`)
    ).stdout.trim();
  const cases: readonly [string, string, string][] = [
    ["kloak-controller", "get secrets -A", "yes"],
    ["kloak-controller", "patch secrets -A", "no"],
    ["kloak-controller", "create pods -A", "no"],
    ["kloak-controller", "create pods/exec -A", "no"],
    ["kloak-controller", "create serviceaccounts/token -A", "no"],
    ["kloak-controller", "impersonate users", "no"],
    ["kloak-controller", "update configmaps -n default", "no"],
    ["kloak-controller", "update configmaps/kloak-controller-trust -n kloak-system", "yes"],
    ["kloak-controller", "update configmaps/other -n kloak-system", "no"],
    ["kloak-controller", "update leases.coordination.k8s.io/kloak-controller -n kloak-system", "yes"],
    ["kloak-controller", "update leases.coordination.k8s.io/other -n kloak-system", "no"],
    ["kloak-controller", "patch mutatingwebhookconfigurations/other", "no"],
    ["kloak-controller", "create clusterrolebindings", "no"],
  ];
  for (const [account, what, answer] of cases)
    assert.equal(await can(account, ...what.split(" ")), answer, `${account}: ${what}`);
});

test("audit API: the API server says who asks, and its rules what they see", async () => {
  await until(
    "the aggregated API",
    async () =>
      (await cluster.kubectl(
        "get",
        "apiservice",
        "v1.audit.getkloak.io",
        "-o",
        "jsonpath={.status.conditions[0].status}",
      )) === "True",
  );
  const path = "/apis/audit.getkloak.io/v1/namespaces/cloaked/records";
  const list = JSON.parse(await cluster.kubectl("get", "--raw", path)) as { kind: string; items: AuditRecord[] };
  assert.equal(list.kind, "RecordList");
  for (const { workload } of list.items) assert.equal(workload?.kind === "pod" && workload.namespace, "cloaked");
  const alice = await cluster.tryKubectl("get", "--raw", path, "--as=alice");
  assert.match(alice.stderr, /alice|[Ff]orbidden/);
  assert.notEqual(alice.status, 0);
  await cluster.kubectl(
    "-n",
    "cloaked",
    "create",
    "rolebinding",
    "alice",
    "--clusterrole=kloak-audit-viewer",
    "--user=alice",
  );
  await until(
    "alice's rights",
    async () => (await cluster.tryKubectl("get", "--raw", path, "--as=alice")).status === 0,
  );
  const all = await cluster.tryKubectl("get", "--raw", "/apis/audit.getkloak.io/v1/records", "--as=alice");
  assert.notEqual(all.status, 0, "a namespace's viewer sees all namespaces");
});

test("no log of the controller has a secret in it", async () => {
  const logs = await cluster.kubectl(
    "-n",
    "kloak-system",
    "logs",
    "-l",
    "app.kubernetes.io/component=controller",
    "--tail=-1",
  );
  for (const text of [value, encode(value), "sk-live-zyx321cba654"]) assert.ok(!logs.includes(text));
});

test("helm: the values have a schema, uninstall leaves nothing that stops pods", async () => {
  await assert.rejects(() => cluster.helm("template", chart, "--set", "controler.replicas=1"), /controler/);
  await assert.rejects(() => cluster.helm("template", chart, "--set", "controller.replicas=0"), /replicas/);
  await cluster.helm("uninstall", "kloak", "-n", "kloak-system", "--wait");
  await cluster.apply(pod("cloaked", "afterwards", tokenEnv));
  const left = await cluster.kubectl(
    "get",
    "clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingwebhookconfiguration,apiservice",
    "-o",
    "name",
  );
  assert.deepEqual(
    left.split("\n").filter((name) => name.includes("kloak")),
    [],
  );
});

test("and nothing of the cluster is left on the machine", async () => {
  await cluster.down();
  const links = execFileSync("ip", ["-o", "link"], { encoding: "utf8" });
  assert.ok(!/ kloak0/.test(links));
});
