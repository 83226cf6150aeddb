import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import type { Operation } from "../kube/json-patch.ts";
import type { KubeObject, Pod, PodSpec } from "../kube/objects.ts";
import { secretUses } from "../shadow/uses.ts";
import { type AdmissionRequest, admitPod, admitSecret, readReview, type Surroundings } from "./admission.ts";
import { allowAnnotation, defeats } from "./defeats.ts";
import { cloakPod, placePod } from "./pod.ts";

const spec: PodSpec = {
  volumes: [
    { name: "a", secret: { secretName: "stripe", items: [{ key: "token", path: "t" }] } },
    { name: "b", projected: { sources: [{ secret: { name: "other" } }, {}, { secret: { name: "stripe" } }] } },
    { name: "c", hostPath: { path: "/srv" } },
    { name: "d", csi: { nodePublishSecretRef: { name: "stripe" } } },
  ],
  initContainers: [{ name: "i", envFrom: [{ secretRef: { name: "stripe" } }, { prefix: "X_" }] }],
  containers: [
    {
      name: "c",
      env: [
        { name: "PLAIN", value: "stripe" },
        { name: "TOKEN", valueFrom: { secretKeyRef: { name: "stripe", key: "token" } } },
        { name: "OTHER", valueFrom: { secretKeyRef: { name: "other", key: "x" } } },
      ],
    },
  ],
  ephemeralContainers: [{ name: "e", env: [{ name: "T", valueFrom: { secretKeyRef: { name: "stripe", key: "k" } } }] }],
};

/** Applies replace and add operations, as the API server does. */
function applied<T>(object: T, operations: readonly Operation[]): T {
  const copy = structuredClone(object);
  for (const operation of operations) {
    const steps = operation.path
      .slice(1)
      .split("/")
      .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
    const last = steps.pop() ?? "";
    const parent = steps.reduce<unknown>((part, step) => (part as Record<string, unknown>)[step], copy);
    assert.ok(parent !== undefined, `${operation.path} has no parent`);
    if (operation.op === "remove") delete (parent as Record<string, unknown>)[last];
    else (parent as Record<string, unknown>)[last] = operation.value;
  }
  return copy;
}

test("every use of a managed Secret names its shadow, and nothing else changes", () => {
  const pod: Pod = { metadata: { name: "p" }, spec };
  const cloaked = applied(
    pod,
    cloakPod(pod, (name) => name === "stripe", true),
  );
  assert.deepEqual(
    secretUses(cloaked.spec).map(({ secret }) => secret),
    ["stripe-kloak", "other", "stripe-kloak", "stripe-kloak", "stripe-kloak", "other", "stripe-kloak"],
  );
  assert.deepEqual(cloaked.metadata.annotations, { "getkloak.io/enabled": "true" });
  const back = JSON.stringify(cloaked.spec).replaceAll("stripe-kloak", "stripe");
  assert.equal(back, JSON.stringify(spec));
  assert.deepEqual(
    cloakPod(cloaked, (name) => name === "stripe", true),
    [],
    "once is enough",
  );
});

test("any pod: after cloaking, no use of a managed Secret is left", () => {
  const name = fc.constantFrom("stripe", "other", "a/b~c", "x-kloak");
  const container = fc.record({
    name: fc.constant("c"),
    env: fc.array(
      fc.record({
        name: fc.constant("E"),
        valueFrom: fc.record({ secretKeyRef: fc.record({ name, key: fc.string() }) }),
      }),
    ),
    envFrom: fc.array(fc.record({ secretRef: fc.record({ name }) })),
  });
  const volume = fc.oneof(
    fc.record({ name: fc.string(), secret: fc.record({ secretName: name }) }),
    fc.record({
      name: fc.string(),
      projected: fc.record({ sources: fc.array(fc.record({ secret: fc.record({ name }) })) }),
    }),
  );
  const pods = fc.record({
    containers: fc.array(container),
    initContainers: fc.array(container),
    ephemeralContainers: fc.array(container),
    volumes: fc.array(volume),
  });
  fc.assert(
    fc.property(pods, (spec) => {
      const pod: Pod = { metadata: { name: "p" }, spec };
      const isManaged = (each: string): boolean => each === "stripe" || each === "a/b~c";
      const cloaked = applied(pod, cloakPod(pod, isManaged, true));
      assert.ok(!secretUses(cloaked.spec).some(({ secret }) => isManaged(secret)));
      assert.equal(secretUses(cloaked.spec).length, secretUses(spec).length);
    }),
  );
});

test("a pod asks for a node whose agent is ready, beside what it asks for itself", () => {
  for (const [own, wanted] of [
    [undefined, { "getkloak.io/agent": "ready" }],
    [
      { disk: "fast", "getkloak.io/agent": "any" },
      { disk: "fast", "getkloak.io/agent": "ready" },
    ],
  ] as const) {
    const pod: Pod = { metadata: { name: "p" }, spec: { ...spec, ...(own && { nodeSelector: own }) } };
    const placed = applied(pod, placePod(pod));
    assert.deepEqual(placed.spec.nodeSelector, wanted);
    assert.deepEqual(placePod(placed), [], "once is enough");
  }
});

const defeating: readonly { name: string; spec: Partial<PodSpec> }[] = [
  { name: "hostNetwork", spec: { hostNetwork: true } },
  { name: "hostPID", spec: { hostPID: true } },
  { name: "privileged", spec: { containers: [{ name: "c", securityContext: { privileged: true } }] } },
  { name: "privileged", spec: { initContainers: [{ name: "c", securityContext: { privileged: true } }] } },
  { name: "privileged", spec: { ephemeralContainers: [{ name: "c", securityContext: { privileged: true } }] } },
  {
    name: "capability:SYS_ADMIN",
    spec: { containers: [{ name: "c", securityContext: { capabilities: { add: ["SYS_ADMIN"] } } }] },
  },
  {
    name: "capability:BPF",
    spec: { containers: [{ name: "c", securityContext: { capabilities: { add: ["cap_bpf"] } } }] },
  },
  {
    name: "capability:ALL",
    spec: { containers: [{ name: "c", securityContext: { capabilities: { add: ["ALL"] } } }] },
  },
  ...[
    "/",
    "//",
    "/proc",
    "/proc/1",
    "/var",
    "/var/lib",
    "/var/lib/kubelet/pods",
    "/run/../etc",
    "/sys/fs/bpf",
    "/run/kloak",
  ].map((path) => ({ name: "hostPath", spec: { volumes: [{ name: "v", hostPath: { path } }] } })),
];

for (const { name, spec: part } of defeating) {
  test(`refused, and allowed by its name: ${JSON.stringify(part)}`, () => {
    const pod: Pod = { metadata: { name: "p" }, spec: { containers: [], ...part } };
    assert.deepEqual(
      defeats(pod).map((each) => each.name),
      [name],
    );
    const annotations = { [allowAnnotation]: `nothing, ${name}` };
    assert.deepEqual(defeats({ ...pod, metadata: { name: "p", annotations } }), []);
  });
}

test("not refused: ordinary paths and the capabilities that runtimes grant", () => {
  const containers = [
    { name: "c", securityContext: { capabilities: { add: ["NET_RAW", "NET_ADMIN", "NET_BIND_SERVICE"] } } },
  ];
  const volumes = ["/srv/data", "/mnt", "/processes", "/running"].map((path) => ({ name: "v", hostPath: { path } }));
  assert.deepEqual(defeats({ metadata: { name: "p" }, spec: { containers, volumes } }), []);
});

const enabled = { "getkloak.io/enabled": "true" };
const namespaces: Readonly<Record<string, KubeObject>> = {
  cloaked: { metadata: { name: "cloaked", labels: enabled } },
  plain: { metadata: { name: "plain" } },
  off: { metadata: { name: "off", labels: { "getkloak.io/enabled": "yes" } } },
};
const around: Surroundings = {
  namespace: (name) => Promise.resolve(namespaces[name]),
  managedAmong: (_, names) => Promise.resolve(new Set(names.filter((name) => name === "stripe"))),
};

async function admission(namespace: string, pod: Pod, more: Partial<AdmissionRequest> = {}) {
  const request = { uid: "1", kind: { kind: "Pod" }, namespace, operation: "CREATE", object: pod, ...more } as const;
  const { patch, ...answer } = await admitPod(request, around);
  const operations = patch === undefined ? [] : (JSON.parse(Buffer.from(patch, "base64").toString()) as Operation[]);
  return { ...answer, replaced: operations.filter(({ op }) => op === "replace").length };
}

test("the pod's label wins over its namespace's; any value but true opts out", async () => {
  const pod = (labels?: Record<string, string>): Pod => ({ metadata: { name: "p", ...(labels && { labels }) }, spec });
  const cases: readonly [string, Pod, number][] = [
    ["cloaked", pod(), 5],
    ["plain", pod(), 0],
    ["off", pod(), 0],
    ["gone", pod(), 0],
    ["plain", pod(enabled), 5],
    ["cloaked", pod({ "getkloak.io/enabled": "false" }), 0],
    ["cloaked", pod({ "getkloak.io/enabled": "" }), 0],
    ["cloaked", pod({ app: "x" }), 5],
  ];
  for (const [namespace, pod, replaced] of cases) {
    assert.equal((await admission(namespace, pod)).replaced, replaced, `${namespace} ${JSON.stringify(pod.metadata)}`);
  }
});

test("an ephemeral container of a cloaked pod gets placeholders, and may not be privileged", async () => {
  const metadata = { name: "p", annotations: enabled };
  const update = { operation: "UPDATE", subResource: "ephemeralcontainers" } as const;
  assert.equal((await admission("plain", { metadata, spec }, update)).replaced, 5);
  assert.equal((await admission("cloaked", { metadata: { name: "p" }, spec }, update)).replaced, 0);
  const privileged = { name: "e", securityContext: { privileged: true } };
  const refused = await admission("plain", { metadata, spec: { ...spec, ephemeralContainers: [privileged] } }, update);
  assert.equal(refused.allowed, false);
  assert.match(refused.status?.message ?? "", /ephemeralContainers\[0\].*privileged.*getkloak\.io\/allow/);
});

test("a privileged pod that is not cloaked is none of our business", async () => {
  const containers = [{ name: "c", securityContext: { privileged: true } }];
  assert.equal((await admission("plain", { metadata: { name: "p" }, spec: { containers } })).allowed, true);
});

test("Secrets: wrong settings are refused with object and remedy, odd values only warned about", () => {
  const admitted = (metadata: object, data?: Record<string, string>) =>
    admitSecret({
      uid: "1",
      kind: { kind: "Secret" },
      operation: "CREATE",
      object: { metadata: { name: "s", namespace: "n", ...metadata }, ...(data && { data }) },
    });
  const hosts = { "getkloak.io/hosts": "api.test" };
  assert.equal(admitted({ labels: { ...enabled, ...hosts } }).allowed, true);
  assert.equal(admitted({}).allowed, true);
  const cases: readonly [object, RegExp][] = [
    [{ labels: enabled }, /hosts/],
    [{ labels: enabled, annotations: { "getkloak.io/hosts": "a b" } }, /a b/],
    [
      { labels: { ...enabled, ...hosts }, annotations: { "getkloak.io/hots": "x" } },
      /did you mean "getkloak.io\/hosts"/,
    ],
    [{ labels: enabled, annotations: { "getkloak.io/hosts": "a".repeat(262_144) } }, /host/],
    [{ labels: enabled, annotations: { "getkloak.io/hosts": "a.test\nb.test\u0000" } }, /./],
    [{ labels: { ...enabled, ...hosts }, annotations: { "getkloak.io/in": "cookies" } }, /cookies/],
  ];
  for (const [metadata, message] of cases) {
    const { allowed, status } = admitted(metadata);
    assert.equal(allowed, false, JSON.stringify(metadata).slice(0, 200));
    assert.match(status?.message ?? "", message);
    assert.ok((status?.message.length ?? 0) < 5000);
  }
  const short = admitted({ labels: { ...enabled, ...hosts } }, { token: Buffer.from("short").toString("base64") });
  assert.deepEqual([short.allowed, short.warnings?.length], [true, 1]);
});

test("what is no AdmissionReview is refused as such", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (data) => {
      assert.throws(() => readReview(data), TypeError);
    }),
  );
});
