/* The whole way in a real cluster: a pod holds a placeholder, the server gets the secret, and only it. */
import assert from "node:assert/strict";
import { request } from "node:https";
import { after, before, test } from "node:test";
import type { AuditRecord } from "../../src/audit/index.ts";
import type { Secret } from "../../src/kube/objects.ts";
import { Cluster, requireCluster, until } from "./cluster.ts";
import { Callers } from "./callers.ts";
import { chart, decode, pod, secret, tokenOf } from "./fixtures.ts";
import { Upstream } from "./upstream.ts";

requireCluster();
const host = "upstream.test";
const value = "sk-live-xyz123abc456";
let cluster: Cluster;
let upstream: Upstream;
let callers: Callers;

async function records(namespace: string): Promise<readonly AuditRecord[]> {
  const list = await cluster.kubectl("get", "--raw", `/apis/audit.getkloak.io/v1/namespaces/${namespace}/records`);
  return (JSON.parse(list) as { items: AuditRecord[] }).items;
}

/** What the trail says of these pods, for the reader of a failure. */
async function saidOf(namespace: string, names: readonly string[]): Promise<string> {
  const about = (await records(namespace)).filter(
    ({ workload }) => workload?.kind === "pod" && names.includes(workload.name),
  );
  const lines = about.map(
    ({ outcome, reason, workload, detail }) =>
      `${workload?.kind === "pod" ? workload.name : ""} ${outcome} ${reason} ${detail}`,
  );
  const logs = await cluster.kubectl(
    "-n",
    "kloak-system",
    "logs",
    "-l",
    "app.kubernetes.io/component=agent",
    "--tail=60",
  );
  return [...lines, logs].join("\n");
}

before(async () => {
  cluster = await Cluster.up((line) => console.error(`# ${line}`));
  upstream = await Upstream.start(host, "10.240.0.1");
  callers = new Callers(cluster, upstream);
  await cluster.helm(
    "install",
    "kloak",
    chart,
    "-n",
    "kloak-system",
    "--create-namespace",
    "--wait",
    "--timeout",
    "120s",
  );
});
after(async () => {
  await (upstream as Upstream | undefined)?.close();
  await (cluster as Cluster | undefined)?.down();
});

test("the server gets the secret from a pod's first request on, on every node; the pod never holds it", async () => {
  await callers.workspace("first", value);
  for (const node of ["node-a", "node-b"]) {
    const made = callers.pod("first", `on-${node}`, tokenOf("key"));
    await cluster.apply({ ...made, spec: { ...made.spec, nodeSelector: { "kubernetes.io/hostname": node } } });
  }
  for (const mark of ["on-node-a", "on-node-b"]) {
    await until(`ten requests of ${mark}`, async () => callers.tokensOf(mark).length >= 10);
    assert.deepEqual([...new Set(callers.tokensOf(mark))], [value]);
    const inside = await cluster.kubectl(
      "-n",
      "first",
      "exec",
      mark,
      "--",
      "sh",
      "-c",
      "echo $TOKEN; cat /proc/1/environ",
    );
    assert.match(inside, /kloak:/);
    assert.ok(!inside.includes(value));
  }
});

test("pods that make one request at once and end: each is substituted", async () => {
  const names = Array.from({ length: 12 }, (_, index) => `brief-${index}`);
  await cluster.apply(...names.map((name) => callers.pod("first", name, tokenOf("key"), { COUNT: "1" })));
  await until("all requests", async () => names.every((name) => callers.tokensOf(name).length === 1));
  const inert = names.filter((name) => callers.tokensOf(name)[0] !== value);
  assert.deepEqual(inert, [], inert.length === 0 ? "" : `what is said of them: ${await saidOf("first", inert)}`);
});

test("every substitution has its record, with namespace, pod, node and key", async () => {
  let found: AuditRecord | undefined;
  await until("a record", async () => {
    found = (await records("first")).find(({ workload }) => workload?.kind === "pod" && workload.name === "on-node-a");
    return found !== undefined;
  });
  assert.equal(found?.outcome, "substituted");
  assert.equal(found.secret, "first/key/token");
  assert.equal(found.workload?.kind === "pod" && found.workload.node, "node-a");
  assert.equal(found.destination.host, host);
  assert.ok(!JSON.stringify(await records("first")).includes(value));
});

test("C3, C5: a placeholder that leaked to another pod or namespace is inert there, and recorded on both sides", async () => {
  await callers.workspace("other", "sk-live-othersecret1"); // of the same name
  const shadow = await cluster.get<Secret>("-n", "first", "secret", "key-kloak");
  const leaked = decode(shadow.data?.["token"]);
  await cluster.apply(
    callers.pod("other", "thief", { env: [{ name: "TOKEN", value: leaked }] }, { COUNT: "3" }),
    callers.pod("first", "neighbour", { env: [{ name: "TOKEN", value: leaked }] }, { COUNT: "3" }),
    callers.pod("other", "honest", tokenOf("key"), { COUNT: "3" }),
  );
  for (const [namespace, mark] of [
    ["other", "thief"],
    ["first", "neighbour"],
  ] as const) {
    await until(`requests of ${mark}`, async () => callers.tokensOf(mark).length >= 3);
    assert.deepEqual([...new Set(callers.tokensOf(mark))], [leaked]);
    await until(`a refusal of ${mark}`, async () =>
      (await records(namespace)).some(
        ({ outcome, reason, workload }) =>
          outcome === "refused" && reason === "not-bound" && workload?.kind === "pod" && workload.name === mark,
      ),
    );
  }
  await until("requests with the secret of the same name", async () => callers.tokensOf("honest").length >= 3);
  assert.deepEqual([...new Set(callers.tokensOf("honest"))], ["sk-live-othersecret1"]);
  // Whose secret it is learns of it, and from where.
  const ofOwner = (await records("first")).filter(
    ({ workload }) => workload?.kind === "pod" && workload.name === "thief",
  );
  assert.ok(ofOwner.length > 0 && ofOwner.every(({ secret }) => secret === "first/key/token"));
  await until("an Event on the Secret", async () => {
    const about = ["--field-selector", "involvedObject.kind=Secret,involvedObject.name=key"];
    const path = "jsonpath={range .items[*]}{.reason} {.message}{end}";
    return /PlaceholderElsewhere pod other\/thief/.test(
      await cluster.kubectl("-n", "first", "get", "events", ...about, "-o", path),
    );
  });
});

test("kloak audit and status, as a user of a kubeconfig who may see this and not that", async () => {
  const alice = await cluster.userOf("first", "alice");
  const bob = await cluster.userOf("first", "bob");
  const subject = "--serviceaccount=first:alice";
  await cluster.kubectl("-n", "first", "create", "rolebinding", "alice", "--clusterrole=kloak-audit-viewer", subject);
  await until("alice's rights", async () => (await cluster.kloak("audit", "--kubeconfig", alice)).status === 0);
  const own = await cluster.kloak("audit", "--kubeconfig", alice, "--json", "--outcome", "substituted");
  const lines = own.stdout.split("\n").filter((line) => line !== "");
  const seen = lines.map((line) => JSON.parse(line) as AuditRecord);
  assert.ok(seen.some(({ workload }) => workload?.kind === "pod" && workload.name === "on-node-a"));
  for (const { workload, outcome } of seen)
    assert.deepEqual([workload?.kind === "pod" && workload.namespace, outcome], ["first", "substituted"]);
  const admin = cluster.node.kubeconfig;
  const all = await cluster.kloak("audit", "--kubeconfig", admin, "-A", "--workload", "other/thief");
  assert.match(all.stdout, /refused .*not-bound/);
  const status = await cluster.kloak("status", "--kubeconfig", admin, "--json");
  const { cluster: state } = JSON.parse(status.stdout) as { cluster: { nodes: string[] } };
  assert.deepEqual(state.nodes.toSorted(), ["node-a", "node-b"], "agents are connected to either replica");

  const refused: readonly [readonly string[], RegExp][] = [
    [["audit", "--kubeconfig", alice, "-A"], /context alice of .* may not see records of all namespaces.*--namespace/],
    [
      ["audit", "--kubeconfig", alice, "-n", "other"],
      /may not see records of namespace other.*kubectl -n other create rolebinding/,
    ],
    [["status", "--kubeconfig", alice], /may not see status of all namespaces/],
    [["audit", "--kubeconfig", bob], /context bob of .* may not see records of namespace first.*kloak-audit-viewer/],
    [["audit", "--kubeconfig", bob, "--follow"], /may not see records of namespace first/],
    [
      ["audit", "--kubeconfig", alice, "--context", "carol"],
      /has no context carol, but alice; name one with --context/,
    ],
    [["audit", "--kubeconfig", alice, "--since", "yesterday"], /is no time/],
  ];
  for (const [args, message] of refused) {
    const { status, stderr, stdout } = await cluster.kloak(...args);
    assert.deepEqual([status, stdout], [1, ""], args.join(" "));
    assert.match(stderr, message);
  }
});

test("a host that is not allowed gets the placeholder; the pod's Events say so", async () => {
  await callers.workspace("elsewhere", value);
  const annotations = { "getkloak.io/hosts": "api.other.test", "getkloak.io/ca": "roots" };
  await cluster.apply(
    secret("elsewhere", "key", { token: value }, { labels: { "getkloak.io/enabled": "true" }, annotations }),
  );
  await cluster.apply(callers.pod("elsewhere", "stray", tokenOf("key"), { COUNT: "3" }));
  await until("its requests", async () => callers.tokensOf("stray").length >= 3);
  assert.ok(callers.tokensOf("stray").every((token) => token.startsWith("kloak:")));
  await until("an Event on the pod", async () =>
    (
      await cluster.kubectl(
        "-n",
        "elsewhere",
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=stray",
        "-o",
        "jsonpath={.items[*].reason}",
      )
    ).includes("SecretHostNotAllowed"),
  );
});

test("a new value of equal shape reaches running pods within two seconds, without a restart", async () => {
  const next = "sk-live-zyx321cba654";
  const annotations = { "getkloak.io/hosts": `${host}:${upstream.port}`, "getkloak.io/ca": "roots" };
  await cluster.apply(
    secret("first", "key", { token: next }, { labels: { "getkloak.io/enabled": "true" }, annotations }),
  );
  const from = performance.now();
  await until(
    "the new value",
    async () => callers.tokensOf("on-node-a").at(-1) === next && callers.tokensOf("on-node-b").at(-1) === next,
    20_000,
  );
  console.error(`# a rotation reached the server after ${Math.round(performance.now() - from)} ms`);
  assert.deepEqual([...new Set(callers.tokensOf("on-node-a"))], [value, next]);
});

test("a value of another shape: running pods keep the old one, are named in an Event, and new pods have the new one", async () => {
  const longer = "sk-live-zyx321cba654-and-longer";
  const annotations = { "getkloak.io/hosts": `${host}:${upstream.port}`, "getkloak.io/ca": "roots" };
  await cluster.apply(
    secret("first", "key", { token: longer }, { labels: { "getkloak.io/enabled": "true" }, annotations }),
  );
  await until("an Event that names the pods", async () =>
    /PlaceholderChanged.*on-node-a/s.test(
      await cluster.kubectl(
        "-n",
        "first",
        "get",
        "events",
        "-o",
        "jsonpath={range .items[*]}{.reason} {.message}{end}",
      ),
    ),
  );
  const before = callers.tokensOf("on-node-a").length;
  await until("more requests", async () => callers.tokensOf("on-node-a").length > before + 10);
  assert.deepEqual([...new Set(callers.tokensOf("on-node-a").slice(before))], ["sk-live-zyx321cba654"]);
  await cluster.apply(callers.pod("first", "newer", tokenOf("key"), { COUNT: "3" }));
  await until("its requests", async () => callers.tokensOf("newer").length >= 3);
  assert.deepEqual([...new Set(callers.tokensOf("newer"))], [longer]);
});

test("agents and controller are killed under load: no request fails, none goes out with a placeholder", async () => {
  const marks = ["on-node-a", "on-node-b"];
  const before = marks.map((mark) => callers.tokensOf(mark).length);
  await cluster.kubectl("-n", "kloak-system", "delete", "pods", "--all", "--grace-period=0", "--force");
  await cluster.kubectl("-n", "kloak-system", "rollout", "status", "daemonset/kloak-agent", "--timeout=120s");
  await cluster.kubectl("-n", "kloak-system", "rollout", "status", "deployment/kloak-controller", "--timeout=120s");
  for (const [index, mark] of marks.entries()) {
    const start = before[index] ?? 0;
    await until(`more requests of ${mark}`, async () => callers.tokensOf(mark).length > start + 50);
    assert.deepEqual([...new Set(callers.tokensOf(mark).slice(start))], ["sk-live-zyx321cba654"]);
    const log = await cluster.kubectl("-n", "first", "logs", mark);
    assert.ok(!log.includes("failed"), log.slice(-500));
  }
  await cluster.apply(callers.pod("first", "after", tokenOf("key"), { COUNT: "3" }));
  await until("requests of a pod that starts afterwards", async () => callers.tokensOf("after").length >= 3);
  assert.ok(callers.tokensOf("after").every((token) => !token.startsWith("kloak:")));
});

test("leader ended, watches cut, API server restarted, under load: no admission fails, no record is lost", async () => {
  const lease = ["-n", "kloak-system", "get", "lease", "kloak-controller", "-o", "jsonpath={.spec.holderIdentity}"];
  const leader = async () => (await cluster.kubectl(...lease)).replace(/_.*/, "");
  await until("a leader", async () => (await leader()) !== "");
  await cluster.apply(callers.pod("first", "steady", tokenOf("key")));
  await until("its requests", async () => callers.tokensOf("steady").length > 5);
  const dry = pod("first", "dry", tokenOf("key"));
  let admitted = 0;
  const over = new AbortController();
  const failures: string[] = [];
  const admissions = (async () => {
    while (!over.signal.aborted) {
      const { status, stderr } = await cluster.tryDryRun(dry);
      // That there is no API server is not the webhook's doing.
      if (status === 0) admitted += 1;
      else if (/webhook/.test(stderr)) failures.push(stderr);
    }
  })();
  try {
    for (let turn = 0; turn < 2; turn++) {
      const before = await leader();
      const asked = admitted;
      await cluster.kubectl("-n", "kloak-system", "delete", "pod", before);
      await until("another leader", async () => !["", before].includes(await leader()));
      await cluster.kubectl("-n", "kloak-system", "rollout", "status", "deployment/kloak-controller", "--timeout=120s");
      await until("more admissions", async () => admitted > asked + 10);
    }
    await cluster.restartApiServer();
    await cluster.apply(secret("first", "later", { token: "sk-live-a-later-secret" }));
    await until(
      "a shadow, made after the restart",
      async () => (await cluster.tryKubectl("-n", "first", "get", "secret", "later-kloak")).status === 0,
    );
    const asked = admitted;
    await until("more admissions", async () => admitted > asked + 10);
  } finally {
    over.abort();
    await admissions;
  }
  assert.deepEqual(failures, []);
  await cluster.kubectl("-n", "first", "delete", "pod", "steady", "--grace-period=1");
  const sent = callers.tokensOf("steady");
  assert.ok(sent.every((token) => !token.startsWith("kloak:")));
  let told = 0;
  await until(
    `a record of each of ${sent.length} requests`,
    async () => {
      const about = (await records("first")).filter(
        ({ workload, outcome }) => workload?.kind === "pod" && workload.name === "steady" && outcome === "substituted",
      );
      told = about.length;
      return told >= sent.length;
    },
    30_000,
  ).catch(() => undefined);
  assert.equal(told, sent.length);
});

test("the node API answers nobody but an agent, for its own node", async () => {
  const address = await cluster.kubectl(
    "-n",
    "kloak-system",
    "get",
    "service",
    "kloak-controller",
    "-o",
    "jsonpath={.spec.clusterIP}",
  );
  const trust = await cluster.kubectl(
    "-n",
    "kloak-system",
    "get",
    "configmap",
    "kloak-controller-trust",
    "-o",
    "jsonpath={.data.ca\\.crt}",
  );
  const ask = (path: string, token: string | undefined) =>
    new Promise<number>((resolve, reject) => {
      const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
      const method = path === "/v1/feed" ? "GET" : "POST";
      const servername = "kloak-controller.kloak-system.svc";
      const outgoing = request(
        { host: address, port: 9444, path, method, headers, ca: trust, servername, agent: false },
        (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        },
      );
      outgoing.on("error", reject);
      outgoing.end(method === "POST" ? "{}" : undefined);
    });
  const tokenFor = async (account: string, ...more: readonly string[]) =>
    (await cluster.kubectl("-n", "kloak-system", "create", "token", account, ...more)).trim();
  const audience = ["--audience", "kloak-controller"];
  const cases: readonly [string, string | undefined, number][] = [
    ["nobody", undefined, 401],
    ["nonsense", "abc", 401],
    ["a token for the API server", await tokenFor("kloak-agent"), 401],
    ["another account", await tokenFor("default", ...audience), 403],
    ["an agent's account, but bound to no pod", await tokenFor("kloak-agent", ...audience), 403],
  ];
  for (const [who, token, status] of cases)
    for (const path of ["/v1/enroll", "/v1/feed", "/v1/records"])
      assert.equal(await ask(path, token), path === "/v1/enroll" ? status : 401, `${who} at ${path}`);
  const agent = await cluster.kubectl(
    "-n",
    "kloak-system",
    "get",
    "pods",
    "-l",
    "app.kubernetes.io/component=agent",
    "-o",
    "jsonpath={.items[0].metadata.name}",
  );
  const stolen = await tokenFor("kloak-agent", ...audience, "--bound-object-kind=Pod", `--bound-object-name=${agent}`);
  assert.equal(await ask("/v1/feed", stolen), 401, "a token without a certificate is not enough");
});

test("a pod that ends leaves nothing bound: its number and namespace are nobody's", async () => {
  await cluster.kubectl("delete", "namespace", "other", "elsewhere", "--wait=false");
  await until("the pods' end", async () => (await cluster.kubectl("-n", "other", "get", "pods", "-o", "name")) === "");
});

test("agents' logs have no secret", async () => {
  const logs = await cluster.kubectl(
    "-n",
    "kloak-system",
    "logs",
    "-l",
    "app.kubernetes.io/component=agent",
    "--tail=-1",
  );
  for (const text of [value, "sk-live-zyx321cba654"]) assert.ok(!logs.includes(text));
});
