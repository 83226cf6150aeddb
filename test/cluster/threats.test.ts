/* Attacks on the control plane of a real cluster: rows C and G of docs/threats.md. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type ClientRequest, get as httpGet, type IncomingMessage } from "node:http";
import { request } from "node:https";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect as tlsConnect } from "node:tls";
import type { FeedLine } from "../../src/controller/node-feed.ts";
import type { Pod, Secret } from "../../src/kube/objects.ts";
import { Cluster, requireCluster, until } from "./cluster.ts";
import { chart, decode, encode, pod, secret, tokenOf } from "./fixtures.ts";

requireCluster();
const value = "sk-live-xyz123abc456";
const servername = "kloak-controller.kloak-system.svc";
let cluster: Cluster;
let service: string;
let trust: string;

before(async () => {
  cluster = await Cluster.up((line) => console.error(`# ${line}`));
  const where = ["-n", "kloak-system", "--create-namespace"];
  await cluster.helm("install", "kloak", chart, ...where, "--wait", "--timeout", "120s");
  await cluster.kubectl("-n", "kloak-system", "rollout", "status", "daemonset/kloak-agent", "--timeout=90s");
  service = await own("service", "kloak-controller", "{.spec.clusterIP}");
  trust = await own("configmap", "kloak-controller-trust", "{.data.ca\\.crt}");
  await cluster.namespace("victim", { "getkloak.io/enabled": "true" });
  await cluster.namespace("attacker", { "getkloak.io/enabled": "true" });
  await cluster.apply(
    secret("victim", "key", { token: value }),
    secret("victim", "elsewhere", { token: `${value}-b` }),
  );
  for (const [name, key, node] of [
    ["on-a", "key", "node-a"],
    ["on-b", "elsewhere", "node-b"],
  ] as const)
    await cluster.apply(pod("victim", name, tokenOf(key), {}, { nodeName: node }));
  for (const name of ["on-a", "on-b"])
    await cluster.kubectl("-n", "victim", "wait", "--for=condition=Ready", `pod/${name}`, "--timeout=60s");
});
after(() => (cluster as Cluster | undefined)?.down());

const own = (kind: string, name: string, path: string): Promise<string> =>
  cluster.kubectl("-n", "kloak-system", "get", kind, name, "-o", `jsonpath=${path}`);

interface Credentials {
  readonly token?: string;
  readonly cert?: string;
  readonly key?: string;
}

function ask(path: string, { token, ...tls }: Credentials, body?: unknown): ClientRequest {
  const outgoing = request({
    host: service,
    port: 9444,
    path,
    method: body === undefined ? "GET" : "POST",
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    ca: trust,
    servername,
    agent: false,
    ...tls,
  });
  outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  return outgoing;
}

async function answer(
  path: string,
  credentials: Credentials,
  body?: unknown,
): Promise<{ status: number; text: string }> {
  const [response] = (await once(ask(path, credentials, body), "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of response.setEncoding("utf8") as AsyncIterable<string>) text += chunk;
  return { status: response.statusCode ?? 0, text };
}

/** The agent's pod on a node, and a token as its own is: what somebody has who could read its files. */
async function stolenFrom(node: string): Promise<{ readonly pod: string; readonly token: string }> {
  const { items } = await cluster.get<{ items: Pod[] }>(
    "-n",
    "kloak-system",
    "pods",
    "-l",
    "app.kubernetes.io/component=agent",
  );
  const { name } = items.find(({ spec }) => spec.nodeName === node)?.metadata ?? { name: "" };
  const bound = ["--bound-object-kind=Pod", `--bound-object-name=${name}`];
  const token = await cluster.kubectl(
    "-n",
    "kloak-system",
    "create",
    "token",
    "kloak-agent",
    "--audience",
    "kloak-controller",
    ...bound,
  );
  return { pod: name, token: token.trim() };
}

async function enroll(token: string): Promise<Credentials> {
  const { publicKey, privateKey } = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
  });
  const { status, text } = await answer("/v1/enroll", { token }, { publicKey });
  assert.equal(status, 200, text);
  return { token, cert: (JSON.parse(text) as { certificate: string }).certificate, key: privateKey };
}

test("G1: whoever stole an agent's token hears of its node alone, may speak for it alone, and for as long as its pod lives", async () => {
  const a = await stolenFrom("node-a");
  const b = await stolenFrom("node-b");
  const asA = await enroll(a.token);
  const mixed = await answer("/v1/feed", { ...asA, token: b.token });
  assert.equal(mixed.status, 403, "a certificate of one node with the token of another");
  const uidOf = async (name: string) => (await cluster.get<Pod>("-n", "victim", "pod", name)).metadata.uid ?? "";
  const onB = { kind: "pod", namespace: "victim", name: "on-b", uid: await uidOf("on-b"), container: null };
  const lie = {
    time: new Date().toISOString(),
    outcome: "substituted",
    reason: null,
    secret: null,
    destination: { host: null, address: null, port: null, attestation: null },
    slot: null,
    encoding: null,
    protocol: null,
    tls: { version: null, cipher: null, stack: null },
  };
  for (const node of ["node-a", "node-b"]) {
    const { status } = await answer("/v1/records", asA, [{ ...lie, workload: { ...onB, node } }]);
    assert.equal(status, 403, `a record of another node's pod, as if it were on ${node}`);
  }
  const { text } = await answer("/v1/pods", asA, { uids: [onB.uid] });
  assert.deepEqual(JSON.parse(text), { pods: {} }, "whether another node's pod is cloaked");
  const heard: FeedLine[] = [];
  // Its agent has the place of one stream, and a successor that of another.
  const outgoing = ask("/v1/feed", asA);
  const [response] = (await once(outgoing, "response")) as [IncomingMessage];
  assert.equal(response.statusCode, 200);
  let isOver = false;
  response.on("close", () => (isOver = true));
  let rest = "";
  response.setEncoding("utf8").on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    heard.push(...lines.filter((line) => line !== "").map((line) => JSON.parse(line) as FeedLine));
  });
  response.on("error", () => undefined);
  await until("the whole of the feed", async () => heard.some(({ type }) => type === "synced"));
  const names = heard.flatMap((line) => (line.type === "secret" ? [line.name] : []));
  assert.deepEqual(names, ["victim/key/token"]);
  assert.deepEqual(
    heard.flatMap((line) => (line.type === "pod" ? [line.name] : [])),
    ["on-a"],
  );
  await cluster.kubectl("-n", "kloak-system", "delete", "pod", a.pod, "--grace-period=0", "--force");
  await until("the end of its feed", async () => isOver, 40_000);
  for (const path of ["/v1/feed", "/v1/enroll"])
    assert.equal(
      (await answer(path, asA, path === "/v1/enroll" ? { publicKey: "" } : undefined)).status,
      401,
      `${path}, replayed`,
    );
  await cluster.kubectl("-n", "kloak-system", "rollout", "status", "daemonset/kloak-agent", "--timeout=90s");
});

test("G1, C3: a workload's own account gets nothing, at the controller and at the API", async () => {
  await cluster.kubectl("-n", "victim", "create", "serviceaccount", "app");
  const forUs = (
    await cluster.kubectl("-n", "victim", "create", "token", "app", "--audience", "kloak-controller")
  ).trim();
  assert.equal((await answer("/v1/enroll", { token: forUs }, { publicKey: "" })).status, 403);
  const as = "--as=system:serviceaccount:victim:app";
  for (const name of ["key", "key-kloak"])
    assert.notEqual((await cluster.tryKubectl("-n", "victim", "get", "secret", name, as)).status, 0);
  const { status } = await cluster.tryKubectl("get", "--raw", "/apis/audit.getkloak.io/v1/records", as);
  assert.notEqual(status, 0);
});

test("G2, C5: names, labels and placeholders of another namespace's Secret bind nothing of it", async () => {
  const shadow = await cluster.get<Secret>("-n", "victim", "secret", "key-kloak");
  const placeholder = decode(shadow.data?.["token"]);
  const forged = (name: string, more: object) => ({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { namespace: "attacker", name, ...more },
    data: { token: encode(placeholder) },
  });
  const marks = { "getkloak.io/managed": "true", "getkloak.io/owner": "key" };
  const owners = [
    { apiVersion: "v1", kind: "Secret", name: "key", uid: shadow.metadata.ownerReferences?.[0]?.uid ?? "" },
  ];
  // As if it were the other's shadow; with an owner that is in another namespace.
  await cluster.apply(forged("key-kloak", { labels: marks, ownerReferences: owners }));
  await cluster.apply(pod("attacker", "names-it", tokenOf("key-kloak"), {}, { nodeName: "node-a" }));
  // And a Secret of its own, whose shadow it rewrites to hold the other's placeholder.
  await cluster.apply(secret("attacker", "mine", { token: "my-own-secret-value-1" }));
  await until(
    "its shadow",
    async () => (await cluster.tryKubectl("-n", "attacker", "get", "secret", "mine-kloak")).status === 0,
  );
  const patch = JSON.stringify({ data: { token: encode(placeholder) } });
  await cluster.kubectl("-n", "attacker", "patch", "secret", "mine-kloak", "-p", patch);
  await until("its own placeholder again", async () => {
    const now = await cluster.get<Secret>("-n", "attacker", "secret", "mine-kloak");
    return decode(now.data?.["token"]) !== placeholder;
  });
  await cluster.apply(pod("attacker", "rewrote-it", tokenOf("mine"), {}, { nodeName: "node-a" }));
  const asA = await enroll((await stolenFrom("node-a")).token);
  const pods = async () => {
    const uids = (await cluster.get<{ items: Pod[] }>("-n", "attacker", "pods")).items.map(
      ({ metadata }) => metadata.uid,
    );
    return Object.values(
      (JSON.parse((await answer("/v1/pods", asA, { uids })).text) as { pods: Record<string, string[]> }).pods,
    );
  };
  await until("both pods", async () => (await pods()).length === 2);
  assert.deepEqual(
    (await pods()).flat().filter((name) => !name.startsWith("attacker/mine/")),
    [],
  );
});

const odd: readonly [string, object][] = [
  ["line feeds and control characters", { "getkloak.io/hosts": "a.test\n\u0007b.test\r\nX: y" }],
  ["200 KiB of hosts", { "getkloak.io/hosts": `${"a".repeat(70)}.test,`.repeat(2500) }],
  [
    "what makes an expression slow",
    { "getkloak.io/hosts": `${"a-".repeat(30_000)}!`, "getkloak.io/in": `header:${"a".repeat(90_000)}!` },
  ],
  ["nesting", { "getkloak.io/ports": "[".repeat(50_000), "getkloak.io/keys": "{".repeat(50_000) }],
  ["letters that are none", { "getkloak.io/hosts": "аpi.test, \u202etset.ipa", "getkloak.io/prefix": "\u0000sk" }],
];
test("G4: odd settings and huge Secrets are refused or said, and hold up nobody", async () => {
  await cluster.namespace("odd");
  for (const [index, [what, annotations]] of odd.entries()) {
    const labels = { "getkloak.io/enabled": "true" };
    const { status, stderr } = await cluster.tryDryRun(
      secret("odd", `odd-${index}`, { token: value }, { labels, annotations }),
    );
    assert.notEqual(status, 0, what);
    assert.match(stderr, /secrets\.getkloak\.io/, what);
    assert.ok(stderr.length < 20_000, `${what}: an answer of ${stderr.length} characters`);
  }
  const many = Object.fromEntries(
    Array.from({ length: 5000 }, (_, i) => [`key-${i}`, `value-number-${String(i).padStart(6, "0")}`]),
  );
  await cluster.create(secret("odd", "large", { token: "x".repeat(700_000), more: value }));
  await cluster.create(secret("odd", "many", many));
  await cluster.apply(secret("odd", "usual", { token: value }));
  for (const name of ["usual", "large", "many"])
    await until(
      `the shadow of ${name}`,
      async () => (await cluster.tryKubectl("-n", "odd", "get", "secret", `${name}-kloak`)).status === 0,
    );
  const large = await cluster.get<Secret>("-n", "odd", "secret", "large-kloak");
  assert.equal(large.data?.["token"], "", "a value that can have no placeholder is left out");
  await noRestarts();
});

async function noRestarts(): Promise<void> {
  const counts = await cluster.kubectl(
    ...["-n", "kloak-system", "get", "pods", "-l", "app.kubernetes.io/component=controller"],
    ...["-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"],
  );
  assert.match(counts, /^0( 0)*$/, "a controller was restarted");
}

test("G7: garbage, endless bodies, slow and many connections, strange certificates at every port hold up nobody", async () => {
  const { items } = await cluster.get<{ items: Pod[] }>(
    "-n",
    "kloak-system",
    "pods",
    "-l",
    "app.kubernetes.io/component=controller",
  );
  const addresses = items.map(({ status }) => status?.podIP ?? "");
  const open: Socket[] = [];
  const keep = <T extends Socket>(socket: T): T => {
    open.push(socket);
    socket.on("error", () => undefined).resume();
    return socket;
  };
  const folder = cluster.scratch;
  const make = [
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-days",
    "1",
    "-subj",
    "/O=kloak:controllers/CN=node-a",
  ];
  execFileSync("openssl", [...make, "-keyout", join(folder, "stranger.key"), "-out", join(folder, "stranger.crt")], {
    stdio: "ignore",
  });
  const stranger = {
    cert: readFileSync(join(folder, "stranger.crt")),
    key: readFileSync(join(folder, "stranger.key")),
  };
  try {
    for (const host of addresses) {
      for (const port of [9443, 9444, 9445]) {
        keep(connect(port, host)).write(Buffer.alloc(100_000, 0xa5));
        keep(connect(port, host)).write(Buffer.from("160301020001000", "hex"));
        for (let i = 0; i < 100; i++) keep(connect(port, host)); // and say nothing
        for (const [name, more] of [
          ["nobody", {}],
          ["a stranger", stranger],
        ] as const) {
          const tls = { host, port, ca: trust, servername, rejectUnauthorized: false, ...more };
          keep(tlsConnect(tls)).write("POST /pods HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{");
          keep(tlsConnect(tls)).write(
            `POST /pods HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n\r\n${"[".repeat(9_000_000)}`,
          );
          keep(tlsConnect(tls)).write("GET / HTTP/1.1\r\nX-Slow: ");
          keep(tlsConnect(tls)).write(`GET / HTTP/1.1\r\n${"X-Many: y\r\n".repeat(20_000)}\r\n`);
          for (const path of ["/v1/peer", "/v1/feed", "/apis/audit.getkloak.io/v1/records"]) {
            const outgoing = request({
              ...tls,
              path,
              agent: false,
              headers: { "x-remote-user": "admin", "x-remote-group": "system:masters" },
            }).end();
            const [response] = (await once(outgoing, "response")) as [IncomingMessage];
            response.resume();
            assert.ok(
              [401, 403, 404].includes(response.statusCode ?? 0),
              `${name} at ${path} of ${port}: ${response.statusCode}`,
            );
          }
          const body = JSON.stringify({
            request: { uid: "u", kind: { kind: "Pod" }, operation: "CREATE", object: { spec: 7 } },
          });
          const outgoing = request({ ...tls, path: "/pods", method: "POST", agent: false }).end(body);
          const [response] = (await once(outgoing, "response")) as [IncomingMessage];
          response.resume();
          assert.ok(Number(response.statusCode) < 600);
        }
      }
      for (let i = 0; i < 100; i++) keep(connect(9090, host)).write("GET /metrics HTTP/1.1\r\nX: ");
    }
    // With all of them still there:
    const { status, stderr } = await cluster.tryDryRun(pod("victim", "meanwhile", tokenOf("key")));
    assert.equal(status, 0, stderr);
    const asA = await enroll((await stolenFrom("node-a")).token);
    assert.equal((await answer("/v1/pods", asA, { uids: [] })).status, 200);
    await until(
      "the audit API",
      async () => (await cluster.tryKubectl("get", "--raw", "/apis/audit.getkloak.io/v1/records")).status === 0,
    );
  } finally {
    for (const socket of open) socket.destroy();
  }
  await noRestarts();
  const [host = ""] = addresses;
  const [metrics] = (await once(httpGet({ host, port: 9090, path: "/metrics" }), "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of metrics.setEncoding("utf8") as AsyncIterable<string>) text += chunk;
  assert.match(text, /kloak_admissions_total/);
  for (const name of ["victim", "sk-live", "kloak:"])
    assert.ok(!text.includes(name), `metrics without a fault name ${name}`);
});

test("G8: what each account can not do", async () => {
  const can = async (account: string, what: string): Promise<string> =>
    (
      await cluster.tryKubectl(
        "auth",
        "can-i",
        ...what.split(" "),
        `--as=system:serviceaccount:kloak-system:${account}`,
      )
    ).stdout.trim();
  const nobody = [
    "get secrets -A",
    "list pods -A",
    "get configmaps -A",
    "create pods -n kloak-system",
    "get leases -n kloak-system",
    "patch nodes",
  ];
  const never = [
    "patch secrets -A",
    "create pods -A",
    "create pods --subresource=exec -A",
    "patch pods -A",
    "delete pods -A",
    "create serviceaccounts --subresource=token -A",
    "impersonate users",
    "impersonate groups",
    "list configmaps -A",
    "update configmaps -n default",
    "get nodes --subresource=proxy",
    "patch mutatingwebhookconfigurations/other",
    "delete mutatingwebhookconfigurations/kloak",
    "create clusterrolebindings",
    "bind clusterroles",
    "escalate clusterroles",
    "approve certificatesigningrequests",
  ];
  for (const [account, whats] of [
    ["kloak-agent", [...never, ...nobody]],
    ["kloak-controller", never],
    ["default", [...never, ...nobody]],
  ] as const)
    for (const what of whats) assert.equal(await can(account, what), "no", `${account}: ${what}`);
});
