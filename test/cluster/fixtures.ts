/* Manifests that the suites share. */
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { projectRoot } from "../../src/dataplane/native.ts";

export const chart = join(projectRoot, "charts/kloak");

export const encode = (text: string): string => Buffer.from(text).toString("base64");
export const decode = (text: string | undefined): string => Buffer.from(text ?? "", "base64").toString("latin1");

export function secret(namespace: string, name: string, data: Record<string, string>, metadata: object = {}) {
  return {
    apiVersion: "v1",
    kind: "Secret",
    metadata: {
      namespace,
      name,
      labels: { "getkloak.io/enabled": "true", "getkloak.io/hosts": "api.test" },
      ...metadata,
    },
    data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, encode(text)])),
  };
}

export function pod(namespace: string, name: string, container: object, metadata: object = {}, spec: object = {}) {
  const usual = { name: "c", image: "localhost/node:1", imagePullPolicy: "Never", command: ["sleep", "1000"] };
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { namespace, name, ...metadata },
    spec: {
      terminationGracePeriodSeconds: 0,
      restartPolicy: "Never",
      ...spec,
      containers: [{ ...usual, ...container }],
    },
  };
}

/** Key `token` of a Secret as variable TOKEN. */
export const tokenOf = (name: string) => ({
  env: [{ name: "TOKEN", valueFrom: { secretKeyRef: { name, key: "token" } } }],
});
