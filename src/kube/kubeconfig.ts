/*
 * A user's connection to a cluster, as kubectl finds it: --kubeconfig, else the files of $KUBECONFIG, else ~/.kube/config,
 * else that of the pod we are in. Of several files the first that has a name decides (client-go tools/clientcmd).
 */
import { Buffer } from "node:buffer";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, isAbsolute, join, resolve } from "node:path";
import * as v from "valibot";
import { parse } from "yaml";
import { KloakError } from "../errors.ts";
import { type Connection, FileText, inClusterConnection, serviceAccountFolder } from "./connection.ts";
import { ExecCredentials, execSchema } from "./exec-credentials.ts";

export interface KubeconfigOptions {
  readonly file?: string | undefined;
  readonly context?: string | undefined;
  readonly environment?: NodeJS.ProcessEnv;
}

export interface UserConnection {
  readonly connection: Connection;
  /** For messages: `context staging of /home/me/.kube/config`. */
  readonly about: string;
  /** That of the context. */
  readonly namespace: string;
}

const text = v.optional(v.nullable(v.string()));
const flag = v.optional(v.nullable(v.boolean()));
const cluster = v.object({
  server: v.string(),
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": flag,
  "tls-server-name": text,
  "proxy-url": text,
});
const user = v.object({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  token: text,
  tokenFile: text,
  username: text,
  "auth-provider": v.optional(v.unknown()),
  exec: v.optional(v.nullable(execSchema)),
  as: text,
  "as-uid": text,
  "as-groups": v.optional(v.nullable(v.array(v.string()))),
});
const context = v.object({ cluster: v.string(), user: text, namespace: text });
const named = <T extends v.GenericSchema>(name: string, schema: T) =>
  v.optional(v.nullable(v.array(v.object({ name: v.string(), [name]: schema }))));
const configSchema = v.object({
  "current-context": text,
  clusters: named("cluster", v.unknown()),
  users: named("user", v.unknown()),
  contexts: named("context", v.unknown()),
});

interface Named<T> {
  readonly value: T;
  /** Where it stands: paths in it are relative to that. */
  readonly file: string;
}

/** @throws KloakError that names the file and what to do */
export async function userConnection(options: KubeconfigOptions = {}): Promise<UserConnection> {
  const { environment = process.env } = options;
  const files = kubeconfigFiles(options);
  if (files.length === 0) {
    if (options.context !== undefined)
      throw problem("no kubeconfig", "is there to have contexts", "name one with --kubeconfig");
    const namespaceFile = join(serviceAccountFolder, "namespace");
    const namespace = existsSync(namespaceFile) ? readFileSync(namespaceFile, "utf8").trim() : "default";
    return { connection: inClusterConnection(environment), about: "the cluster of this pod", namespace };
  }
  const configs = files.map((file) => ({ file, value: readConfig(file) }));
  const where = files.join(", ");
  const name = options.context ?? configs.map(({ value }) => value["current-context"]).find(isText);
  if (name === undefined) throw problem(where, "has no current context", "name one with --context");
  const chosen = find(configs, "contexts", "context", name, context, "name one with --context");
  const { cluster: clusterName, user: userName, namespace } = chosen.value;
  const server = find(configs, "clusters", "cluster", clusterName, cluster, `correct context ${name}`);
  const who = isText(userName) ? find(configs, "users", "user", userName, user, `correct context ${name}`) : undefined;
  return {
    connection: await connectionOf(server, who, clusterName, userName ?? ""),
    about: `context ${name} of ${chosen.file}`,
    namespace: isText(namespace) ? namespace : "default",
  };
}

/** Files that are there; the one that was asked for in any case. */
export function kubeconfigFiles({ file, environment = process.env }: KubeconfigOptions): readonly string[] {
  if (file !== undefined) return [resolve(file)];
  const list = (environment["KUBECONFIG"] ?? "").split(delimiter).filter(isText);
  const usual = join(environment["HOME"] ?? homedir(), ".kube/config");
  return (list.length > 0 ? list : [usual]).map((each) => resolve(each)).filter((each) => existsSync(each));
}

function readConfig(file: string): v.InferOutput<typeof configSchema> {
  let data: unknown;
  try {
    data = parse(readFileSync(file, "utf8")) ?? {};
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split("\n")[0] ?? "") : String(cause);
    throw problem(file, `cannot be read: ${why}`, "name another with --kubeconfig", cause);
  }
  return checked(configSchema, data, file, "is no kubeconfig");
}

type List = "clusters" | "users" | "contexts";

function find<T extends v.GenericSchema>(
  configs: readonly Named<v.InferOutput<typeof configSchema>>[],
  list: List,
  kind: string,
  name: string,
  schema: T,
  remedy: string,
): Named<v.InferOutput<T>> {
  for (const { file, value } of configs) {
    const entry = (value[list] ?? []).find((each) => each.name === name);
    if (entry === undefined) continue;
    const data = (entry as Readonly<Record<string, unknown>>)[kind] ?? {};
    return { value: checked(schema, data, file, `has a ${kind} ${name} that is wrong`), file };
  }
  const names = configs.flatMap(({ value }) => (value[list] ?? []).map((each) => each.name));
  const known = names.length === 0 ? "none" : names.join(", ");
  throw problem(configs.map(({ file }) => file).join(", "), `has no ${kind} ${name}, but ${known}`, remedy);
}

async function connectionOf(
  { value: server, file }: Named<v.InferOutput<typeof cluster>>,
  who: Named<v.InferOutput<typeof user>> | undefined,
  clusterName: string,
  userName: string,
): Promise<Connection> {
  const url = URL.canParse(server.server) ? new URL(server.server) : undefined;
  if (url?.protocol !== "https:")
    throw problem(file, `cluster ${clusterName}: server ${server.server} is no https address`, "correct it");
  if (isText(server["proxy-url"]))
    throw problem(
      file,
      `cluster ${clusterName}: proxy-url is not supported`,
      "use kubectl get --raw, or a context without it",
    );
  const credentials = who === undefined ? { authorization: () => undefined } : await credentialsOf(who, userName, url);
  const servername = server["tls-server-name"];
  return {
    server: url,
    ca: material(file, server["certificate-authority"], server["certificate-authority-data"]),
    verification: {
      ...(isText(servername) && { servername }),
      ...(server["insecure-skip-tls-verify"] === true && { rejectUnauthorized: false }),
    },
    ...credentials,
  };
}

async function credentialsOf(
  { value: who, file }: Named<v.InferOutput<typeof user>>,
  name: string,
  server: URL,
): Promise<Pick<Connection, "authorization" | "certificate" | "headers">> {
  if (who["auth-provider"] !== undefined && who["auth-provider"] !== null)
    throw problem(file, `user ${name}: auth-provider is not supported`, "use its exec plugin");
  if (isText(who.username))
    throw problem(
      file,
      `user ${name}: API servers take no passwords any more`,
      "use a token, certificate or exec plugin",
    );
  const headers = impersonation(who);
  const cert = material(file, who["client-certificate"], who["client-certificate-data"]);
  const key = material(file, who["client-key"], who["client-key-data"]);
  const own = {
    ...(headers !== undefined && { headers }),
    ...(cert !== undefined && key !== undefined && { certificate: { cert, key } }),
  };
  if (who.exec !== undefined && who.exec !== null) {
    const exec = new ExecCredentials({ exec: who.exec, folder: dirname(file), about: `${file}: user ${name}`, server });
    const certificate = await exec.certificate();
    return { ...own, ...(certificate !== undefined && { certificate }), authorization: () => exec.authorization() };
  }
  if (isText(who.tokenFile)) {
    const token = new FileText(inFolderOf(file, who.tokenFile));
    token.read(); // so that a wrong name is said at once
    return { ...own, authorization: () => `Bearer ${token.read().trim()}` };
  }
  const { token } = who;
  return { ...own, authorization: () => (isText(token) ? `Bearer ${token}` : undefined) };
}

function impersonation(who: v.InferOutput<typeof user>): Readonly<Record<string, string>> | undefined {
  if (!isText(who.as)) return undefined;
  const groups = who["as-groups"] ?? [];
  // A header for each would be needed, and none of ours has more than one value.
  if (groups.length > 1)
    throw new KloakError("kubeconfig-invalid", "as-groups: one group is supported; use kubectl get --raw");
  return {
    "impersonate-user": who.as,
    ...(isText(who["as-uid"]) && { "impersonate-uid": who["as-uid"] }),
    ...(groups[0] !== undefined && { "impersonate-group": groups[0] }),
  };
}

/** PEM from a file, or written in place as base64, which wins. */
function material(
  config: string,
  path: string | null | undefined,
  data: string | null | undefined,
): string | undefined {
  if (isText(data)) return Buffer.from(data, "base64").toString("utf8");
  return isText(path) ? new FileText(inFolderOf(config, path)).read() : undefined;
}

function inFolderOf(config: string, path: string): string {
  return isAbsolute(path) ? path : join(dirname(config), path);
}

function isText(value: string | null | undefined): value is string {
  return value !== undefined && value !== null && value !== "";
}

function checked<T extends v.GenericSchema>(schema: T, data: unknown, file: string, what: string): v.InferOutput<T> {
  const result = v.safeParse(schema, data);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw problem(file, `${what}: ${v.getDotPath(issue) ?? "it"}: ${issue.message}`, "correct it");
}

function problem(file: string, what: string, remedy: string, cause?: unknown): KloakError {
  return new KloakError("kubeconfig-invalid", `${file} ${what}; ${remedy}`, { cause });
}
