/*
 * Which node an agent speaks for: by its service-account token, which the API server has bound to the agent's pod and
 * through it to a node (KEP-4193, in every token since 1.32), and by the certificate that we gave it for such a token.
 */
import { createHash } from "node:crypto";
import type { TLSSocket } from "node:tls";
import type { KubeClient } from "../kube/client.ts";
import { pathOf, resources } from "../kube/resource.ts";
import { HttpError } from "../tls/server.ts";
import { agentOrganization } from "./certificates.ts";

/** Only tokens made for us: one meant for the API server is no use here, nor one of ours there. */
export const tokenAudience = "kloak-controller";

interface TokenReview {
  readonly status?: {
    readonly authenticated?: boolean;
    readonly error?: string;
    readonly audiences?: readonly string[];
    readonly user?: {
      readonly username?: string;
      readonly extra?: Readonly<Record<string, readonly string[]>>;
    };
  };
}

export interface NodeIdentityOptions {
  readonly client: Pick<KubeClient, "request">;
  /** `system:serviceaccount:kloak-system:kloak-agent`. */
  readonly agentUser: string;
  readonly now?: () => number;
}

export interface AgentIdentity {
  readonly node: string;
  readonly pod: string;
}

const nodeKey = "authentication.kubernetes.io/node-name";
const podKey = "authentication.kubernetes.io/pod-name";
/** A token is asked about again after this: it ends with its pod. */
const trustMs = 10_000;
const cacheSize = 1000;

export class NodeIdentity {
  readonly #options: NodeIdentityOptions & { now: () => number };
  /** By the token's digest. */
  readonly #known = new Map<string, { readonly identity: AgentIdentity; readonly untilMs: number }>();

  constructor(options: NodeIdentityOptions) {
    this.#options = { now: Date.now, ...options };
  }

  /** @throws HttpError 401, 403 */
  async ofToken(authorization: string | undefined): Promise<AgentIdentity> {
    const token = /^Bearer ([A-Za-z0-9._~+/=-]{1,8192})$/.exec(authorization ?? "")?.[1];
    if (token === undefined) throw new HttpError(401, "a bearer token is needed");
    const digest = createHash("sha256").update(token).digest("base64");
    const known = this.#known.get(digest);
    if (known !== undefined && known.untilMs > this.#options.now()) return known.identity;
    this.#known.delete(digest);
    const identity = await this.#review(token);
    this.#known.set(digest, { identity, untilMs: this.#options.now() + trustMs });
    if (this.#known.size > cacheSize) this.#known.delete(this.#known.keys().next().value ?? "");
    return identity;
  }

  async #review(token: string): Promise<AgentIdentity> {
    const review = await this.#options.client.request<TokenReview>("POST", pathOf(resources.tokenReviews), {
      isRead: true,
      body: {
        apiVersion: resources.tokenReviews.apiVersion,
        kind: resources.tokenReviews.kind,
        spec: { token, audiences: [tokenAudience] },
      },
    });
    const { authenticated, audiences = [], user } = review.status ?? {};
    if (authenticated !== true || !audiences.includes(tokenAudience))
      throw new HttpError(401, "the token is not valid");
    if (user?.username !== this.#options.agentUser) {
      throw new HttpError(403, `the token is of ${user?.username}, not of ${this.#options.agentUser}`);
    }
    const node = user.extra?.[nodeKey]?.[0];
    const pod = user.extra?.[podKey]?.[0];
    if (node === undefined || pod === undefined) {
      throw new HttpError(
        403,
        "the token does not say its node: Kubernetes 1.32 or newer is needed, and a token bound to a pod",
      );
    }
    return { node, pod };
  }

  /**
   * An agent with certificate and token, both of one node.
   * @throws HttpError 401, 403
   */
  async ofConnection(socket: TLSSocket, authorization: string | undefined): Promise<AgentIdentity> {
    if (!socket.authorized) throw new HttpError(401, "a client certificate of this controller is needed: enroll first");
    const { subject } = socket.getPeerCertificate();
    if (subject?.O !== agentOrganization) throw new HttpError(403, "the certificate is no agent's");
    const identity = await this.ofToken(authorization);
    if (subject.CN !== identity.node) {
      throw new HttpError(403, `the certificate is of node ${String(subject.CN)}, the token of ${identity.node}`);
    }
    return identity;
  }
}
