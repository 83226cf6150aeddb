/*
 * `audit.getkloak.io/v1`, an aggregated API: the API server says who asks, having checked it, and its own rules say what
 * they may see. `kubectl get --raw /apis/audit.getkloak.io/v1/namespaces/payments/records` is what `kloak audit` does.
 */
import type { TLSSocket } from "node:tls";
import { X509Certificate } from "node:crypto";
import { auditGroup } from "../audit/group.ts";
import { type AuditRecord, parseFilter } from "../audit/index.ts";
import type { KubeClient } from "../kube/client.ts";
import type { ConfigMap } from "../kube/objects.ts";
import { pathOf, resources } from "../kube/resource.ts";
import { type Exchange, HttpError } from "../tls/server.ts";
import type { AuditStore, Entry } from "./audit-store.ts";
import { beginStream, sendStore, whileRead } from "./stream.ts";

/** Who the API server says is asking. */
export interface User {
  readonly name: string;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

/** From `kube-system/extension-apiserver-authentication`. */
interface FrontProxy {
  readonly ca: string;
  readonly names: readonly string[];
  readonly userHeaders: readonly string[];
  readonly groupHeaders: readonly string[];
  readonly extraPrefixes: readonly string[];
}

export interface AuditApiOptions {
  readonly client: Pick<KubeClient, "request" | "get">;
  readonly store: AuditStore;
  /** State of the nodes, for `kloak status`. */
  readonly status: () => unknown;
  /** From here on no watch is served. */
  readonly signal: AbortSignal;
  readonly now?: () => number;
}

/** A watch says something at least so often. */
const quietMs = 15_000;
const frontProxyMs = 60_000;
const mayMs = 10_000;
const mayMax = 5000;

export class AuditApi {
  readonly #options: AuditApiOptions & { now: () => number };
  #frontProxy: { readonly value: FrontProxy; readonly untilMs: number } | undefined;
  readonly #may = new Map<string, { readonly allowed: boolean; readonly untilMs: number }>();

  constructor(options: AuditApiOptions) {
    this.#options = { now: Date.now, ...options };
  }

  /** Answers what lies below `/apis/audit.getkloak.io`; @throws HttpError */
  async answer(exchange: Exchange): Promise<unknown> {
    const { url, request, socket } = exchange;
    if (url.pathname === `/apis/${auditGroup}/v1`) return discovery;
    const user = await this.#user(socket, request.headers);
    const path = /^\/apis\/audit\.getkloak\.io\/v1(?:\/namespaces\/([a-z0-9-]{1,63}))?\/(records|status)$/.exec(
      url.pathname,
    );
    if (path === null || request.method !== "GET")
      throw new HttpError(404, `there is no ${request.method} ${url.pathname}`);
    const [, namespace, resource = ""] = path;
    // As the API server names what it has let through: a GET of a collection.
    const verb = url.searchParams.has("watch") ? "watch" : "list";
    await this.#authorize(user, verb, namespace, resource);
    if (resource === "status")
      return { kind: "Status", apiVersion: `${auditGroup}/v1`, ...asObject(this.#options.status()) };
    return this.#records(exchange, namespace);
  }

  async #records({ url, response }: Exchange, namespace: string | undefined): Promise<unknown> {
    const query = (name: string): string | undefined => url.searchParams.get(name) ?? undefined;
    const filter = filterOf({
      secret: query("secret"),
      workload: query("workload"),
      outcome: query("outcome"),
      since: query("since"),
    });
    const wanted = (record: AuditRecord): boolean => isIn(record, namespace) && filter(record);
    const { store } = this.#options;
    if (query("watch") === undefined)
      return { kind: "RecordList", apiVersion: `${auditGroup}/v1`, items: store.records().filter(wanted) };
    beginStream(response);
    const text = ({ record }: Entry): string => (wanted(record) ? `${JSON.stringify(record)}\n` : "");
    const signal = AbortSignal.any([whileRead(response), this.#options.signal]);
    await sendStore(response, { store, text, ping: () => "\n", quietMs }, signal);
    return undefined;
  }

  /** The API server's certificate is what makes its word about the user good. */
  async #user(socket: TLSSocket, headers: Exchange["request"]["headers"]): Promise<User> {
    const proxy = await this.#frontProxyNow();
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined || !isSignedBy(certificate, proxy.ca, this.#options.now())) {
      throw new HttpError(
        401,
        "ask the API server, which knows who you are: kubectl get --raw /apis/audit.getkloak.io/v1/…",
      );
    }
    const { CN } = certificate.toLegacyObject().subject;
    if (proxy.names.length > 0 && !proxy.names.includes(String(CN))) {
      throw new HttpError(403, `certificate ${String(CN)} may not speak for users`);
    }
    const values = (name: string): string[] => {
      const value = headers[name.toLowerCase()];
      return value === undefined ? [] : (Array.isArray(value) ? value : value.split(",")).map((each) => each.trim());
    };
    const name = proxy.userHeaders.flatMap(values)[0];
    if (name === undefined) throw new HttpError(401, "the API server does not say who is asking");
    const extra = Object.keys(headers).flatMap((header) => {
      const prefix = proxy.extraPrefixes.find((each) => header.startsWith(each.toLowerCase()));
      return prefix === undefined ? [] : [[decodeURIComponent(header.slice(prefix.length)), values(header)] as const];
    });
    return { name, groups: proxy.groupHeaders.flatMap(values), extra: Object.fromEntries(extra) };
  }

  async #authorize(user: User, verb: string, namespace: string | undefined, resource: string): Promise<void> {
    const key = JSON.stringify([user, verb, namespace, resource]);
    const known = this.#may.get(key);
    const allowed =
      known !== undefined && known.untilMs > this.#options.now()
        ? known.allowed
        : await this.#ask(user, verb, namespace, resource);
    this.#may.set(key, { allowed, untilMs: this.#options.now() + mayMs });
    if (this.#may.size > mayMax) this.#may.delete(this.#may.keys().next().value ?? "");
    if (allowed) return;
    const where = namespace === undefined ? "of all namespaces" : `of namespace ${namespace}`;
    throw new HttpError(403, `${user.name} may not ${verb} ${resource}.${auditGroup} ${where}: a Role must allow it`);
  }

  async #ask(
    { name, groups, extra }: User,
    verb: string,
    namespace: string | undefined,
    resource: string,
  ): Promise<boolean> {
    const attributes = {
      group: auditGroup,
      version: "v1",
      resource,
      verb,
      ...(namespace !== undefined && { namespace }),
    };
    const review = await this.#options.client.request<{ status?: { allowed?: boolean } }>(
      "POST",
      pathOf(resources.accessReviews),
      {
        isRead: true,
        body: {
          apiVersion: resources.accessReviews.apiVersion,
          kind: resources.accessReviews.kind,
          spec: { user: name, groups, extra, resourceAttributes: attributes },
        },
      },
    );
    return review.status?.allowed === true;
  }

  async #frontProxyNow(): Promise<FrontProxy> {
    const known = this.#frontProxy;
    if (known !== undefined && known.untilMs > this.#options.now()) return known.value;
    const { data = {} } = await this.#options.client.get<ConfigMap>(
      resources.configMaps,
      "kube-system",
      "extension-apiserver-authentication",
    );
    const list = (name: string): string[] => JSON.parse(data[name] ?? "[]") as string[];
    const ca = data["requestheader-client-ca-file"];
    if (ca === undefined)
      throw new HttpError(503, "this API server has no aggregation layer (--requestheader-client-ca-file)");
    const value = {
      ca,
      names: list("requestheader-allowed-names"),
      userHeaders: list("requestheader-username-headers"),
      groupHeaders: list("requestheader-group-headers"),
      extraPrefixes: list("requestheader-extra-headers-prefix"),
    };
    this.#frontProxy = { value, untilMs: this.#options.now() + frontProxyMs };
    return value;
  }
}

const discovery = {
  kind: "APIResourceList",
  apiVersion: "v1",
  groupVersion: `${auditGroup}/v1`,
  resources: ["records", "status"].map((name) => ({
    name,
    singularName: "",
    namespaced: name === "records",
    kind: name === "records" ? "Record" : "Status",
    verbs: ["list", "watch"],
  })),
};

/**
 * A record belongs to its pod's namespace and to its secret's: whose placeholder was found elsewhere is to know it. What is
 * known of neither is only for those who may see all.
 */
function isIn({ workload, secret }: AuditRecord, namespace: string | undefined): boolean {
  if (namespace === undefined) return true;
  return (workload?.kind === "pod" && workload.namespace === namespace) || secret?.startsWith(`${namespace}/`) === true;
}

function filterOf(input: Parameters<typeof parseFilter>[0]): ReturnType<typeof parseFilter> {
  try {
    return parseFilter(input);
  } catch (error) {
    throw new HttpError(400, error instanceof Error ? error.message : String(error));
  }
}

function isSignedBy(certificate: X509Certificate, bundle: string, now: number): boolean {
  const isCurrent = Date.parse(certificate.validFrom) <= now && now <= Date.parse(certificate.validTo);
  const authorities = bundle.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  return (
    isCurrent &&
    authorities.some((text) => {
      const authority = new X509Certificate(text);
      return authority.ca && certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
    })
  );
}

function asObject(value: unknown): object {
  return typeof value === "object" && value !== null ? value : {};
}
