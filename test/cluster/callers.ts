/* Pods that call the server outside over and over, each with what it holds. */
import type { Pod } from "../../src/kube/objects.ts";
import { type Cluster, until } from "./cluster.ts";
import { pod, secret } from "./fixtures.ts";
import type { Upstream } from "./upstream.ts";

/** On one connection, with what is in TOKEN or in the file; says each outcome. */
export const callScript = `
const https = require("https"), fs = require("fs"), agent = new https.Agent({ keepAlive: true });
const count = Number(process.env.COUNT ?? 1e9), host = process.env.HOST;
function token() { return process.env.TOKEN ?? fs.readFileSync("/secret/token", "utf8"); }
function call(left) {
  if (!left) process.exit(0);
  https.get({ agent, host, port: process.env.PORT, headers: { authorization: "Bearer " + token() + " " + (process.env.MARK ?? "") } }, (r) => {
    r.resume().on("end", () => { console.log("status", r.statusCode); setTimeout(call, 100, left - 1); });
  }).on("error", (e) => { console.log("failed", e.message); setTimeout(call, 100, left - 1); });
}
call(count);`;

export class Callers {
  readonly #cluster: Cluster;
  readonly #upstream: Upstream;

  constructor(cluster: Cluster, upstream: Upstream) {
    this.#cluster = cluster;
    this.#upstream = upstream;
  }

  /** @param source container fields that give it TOKEN, or a volume at /secret */
  pod(namespace: string, name: string, source: object, env: Readonly<Record<string, string>> = {}) {
    const { host, port } = this.#upstream;
    const variables = { HOST: host, PORT: String(port), NODE_EXTRA_CA_CERTS: "/ca/ca.pem", MARK: name, ...env };
    const { env: own = [], ...rest } = source as { env?: object[] };
    const container = {
      command: ["node", "-e", callScript],
      env: [...own, ...Object.entries(variables).map(([key, value]) => ({ name: key, value }))],
      volumeMounts: [{ name: "ca", mountPath: "/ca" }],
      ...rest,
    };
    return pod(namespace, name, container, {}, { volumes: [{ name: "ca", configMap: { name: "roots" } }] });
  }

  /** A cloaked namespace whose Secret `key` may go to the server. */
  async workspace(name: string, value: string): Promise<void> {
    const { host, port, authority } = this.#upstream;
    await this.#cluster.namespace(name, { "getkloak.io/enabled": "true" });
    const annotations = { "getkloak.io/hosts": `${host}:${port}`, "getkloak.io/ca": "roots" };
    const roots = { apiVersion: "v1", kind: "ConfigMap", metadata: { namespace: name, name: "roots" } };
    await this.#cluster.apply(
      { ...roots, data: { "ca.pem": authority } },
      secret(name, "key", { token: value }, { labels: { "getkloak.io/enabled": "true" }, annotations }),
    );
    await until(
      `the shadow in ${name}`,
      async () => (await this.#cluster.tryKubectl("-n", name, "get", "secret", "key-kloak")).status === 0,
    );
  }

  /** What the server got of this pod. */
  tokensOf(mark: string): string[] {
    return this.#upstream.received
      .filter(({ authorization }) => authorization.endsWith(` ${mark}`))
      .map(({ authorization }) => authorization.split(" ")[1] ?? "");
  }

  /** What became of a pod. */
  async phaseOf(namespace: string, name: string): Promise<Pod["status"]> {
    return (await this.#cluster.get<Pod>("-n", namespace, "pod", name)).status;
  }
}
