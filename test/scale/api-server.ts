/* An API server and its etcd alone, on loopback: objects that no node has to run. The cluster suite's binaries. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KubeClient } from "../../src/kube/client.ts";
import { createAuthority } from "../../src/lab/certificates.ts";
import { cache, until } from "../cluster/cluster.ts";

const token = "scale-test";

export class ApiServer {
  readonly folder: string;
  readonly #children: ChildProcess[] = [];
  readonly client: KubeClient;
  /** A kubeconfig that may do everything. */
  readonly kubeconfig: string;

  private constructor(folder: string, port: number, caFile: string) {
    this.folder = folder;
    const server = `https://127.0.0.1:${port}`;
    this.client = new KubeClient({
      server: new URL(server),
      ca: readFileSync(caFile, "utf8"),
      authorization: () => `Bearer ${token}`,
    });
    this.kubeconfig = join(this.folder, "kubeconfig");
    const config = {
      "current-context": "c",
      contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
      clusters: [{ name: "c", cluster: { server, "certificate-authority": caFile } }],
      users: [{ name: "u", user: { token } }],
    };
    writeFileSync(this.kubeconfig, JSON.stringify(config));
  }

  static async start(): Promise<ApiServer> {
    execFileSync(join(import.meta.dirname, "../cluster/build.sh"), { stdio: ["ignore", "ignore", "inherit"] });
    const [client, peer, port] = (await freePorts(3)) as [number, number, number];
    const folder = mkdtempSync(join(tmpdir(), "kloak-scale-"));
    const pki = join(folder, "pki");
    mkdirSync(pki);
    const authority = createAuthority(pki, "scale");
    const { keyFile, certificateFile } = authority.issue("server", { ip: ["127.0.0.1"] });
    const accounts = join(pki, "accounts.key");
    execFileSync("openssl", ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", accounts]);
    const api = new ApiServer(folder, port, authority.caFile);
    const tokens = join(api.folder, "tokens.csv");
    writeFileSync(tokens, `${token},admin,admin,system:masters\n`, { mode: 0o600 });
    const etcd = `http://127.0.0.1:${client}`;
    const peers = `http://127.0.0.1:${peer}`;
    api.#run("etcd", [
      ...["--data-dir", join(api.folder, "etcd"), "--unsafe-no-fsync", "--log-level", "warn"],
      ...["--listen-client-urls", etcd, "--advertise-client-urls", etcd],
      ...["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", `default=${peers}`],
    ]);
    api.#run("kube-apiserver", [
      ...["--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--secure-port", String(port)],
      ...["--tls-cert-file", certificateFile, "--tls-private-key-file", keyFile, "--token-auth-file", tokens],
      ...["--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount"],
      ...["--service-account-issuer", "https://scale.test", "--service-account-key-file", accounts],
      ...["--service-account-signing-key-file", accounts, "--service-cluster-ip-range", "10.96.0.0/16"],
      ...["--endpoint-reconciler-type", "none", "--profiling=false"],
    ]);
    try {
      await until("the API server", async () => {
        for (const { exitCode, spawnfile } of api.#children)
          if (exitCode !== null) throw new Error(`${spawnfile} has ended: see ${api.folder}`);
        return api.client.request("GET", "/api/v1/namespaces/default").then(
          () => true,
          () => false,
        );
      });
      return api;
    } catch (error) {
      await api.#end();
      throw error;
    }
  }

  async stop(): Promise<void> {
    await this.#end();
    rmSync(this.folder, { recursive: true });
  }

  async #end(): Promise<void> {
    this.client.close();
    for (const child of this.#children) {
      const ended = once(child, "exit");
      if (child.exitCode === null && child.kill("SIGKILL")) await ended;
    }
  }

  #run(name: string, args: readonly string[]): void {
    const log = openSync(join(this.folder, `${name}.log`), "a");
    this.#children.push(spawn(join(cache, "bin", name), args, { stdio: ["ignore", log, log] }));
  }
}

/** Ports of loopback that nobody has now. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
