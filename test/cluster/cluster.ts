/* A real cluster on this machine (up.sh), and words to talk to it. */
import { execFile, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { projectRoot } from "../../src/dataplane/native.ts";
import { version } from "../../src/version.ts";

const run = promisify(execFile);
const scripts = import.meta.dirname;
export const cache =
  process.env["KLOAK_CLUSTER_CACHE"] ??
  join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "kloak-cluster");
const data = join(cache, "data");
const path = `${join(cache, "bin")}:${process.env["PATH"]}`;
/** As the chart calls it, so that nothing has to be set to install it. */
export const image = `docker.io/kloak/kloak:${version}`;
/** What the image starts: node, its flags, and the program. */
const entrypoint = imageEntrypoint();
export const imageFlags = entrypoint.slice(1, -1);

export interface Output {
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number;
}

export class Cluster {
  readonly #work = mkdtempSync(join(tmpdir(), "kloak-cluster-"));

  /** Builds what is missing, starts all, and brings Kloak's image into every node. Minutes, the first time. */
  static async up(say: (message: string) => void): Promise<Cluster> {
    const cluster = new Cluster();
    await cluster.#script("build.sh", say);
    await cluster.#script("down.sh", say); // of a run that was killed
    await cluster.#script("up.sh", say);
    await cluster.#bringImage(say);
    return cluster;
  }

  async down(): Promise<void> {
    await this.#script("down.sh", () => undefined);
    rmSync(this.#work, { recursive: true, force: true });
  }

  async kubectl(...args: readonly string[]): Promise<string> {
    const { stdout, stderr, status } = await this.tryKubectl(...args);
    if (status !== 0) throw new Error(`kubectl ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  /** What went wrong is for the caller to look at. */
  tryKubectl(...args: readonly string[]): Promise<Output> {
    return this.#run(join(cache, "bin/kubectl"), args);
  }

  async helm(...args: readonly string[]): Promise<string> {
    const { stdout, stderr, status } = await this.#run(join(cache, "bin/helm"), args);
    if (status !== 0) throw new Error(`helm ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  async get<T>(...args: readonly string[]): Promise<T> {
    return JSON.parse(await this.kubectl("get", ...args, "-o", "json")) as T;
  }

  /** Applies manifests, given as objects. */
  async apply(...objects: readonly object[]): Promise<void> {
    const { stderr, status } = await this.tryApply(...objects);
    if (status !== 0) throw new Error(stderr);
  }

  async tryApply(...objects: readonly object[]): Promise<Output> {
    const file = join(this.#work, `${Math.random().toString(36).slice(2)}.json`);
    writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }));
    return this.tryKubectl("apply", "-f", file);
  }

  /** Makes an object as it is: `apply` would write it into an annotation too, which may be too long. */
  async create(object: object): Promise<void> {
    const file = join(this.#work, "create.json");
    writeFileSync(file, JSON.stringify(object));
    await this.kubectl("create", "-f", file);
  }

  /** Whether the API server, and the webhooks that it asks, would take this object. */
  async tryDryRun(object: object): Promise<Output> {
    const file = join(this.#work, "dry-run.json");
    writeFileSync(file, JSON.stringify(object));
    return this.tryKubectl("create", "--dry-run=server", "-f", file);
  }

  /** A namespace that is ready for pods. */
  async namespace(name: string, labels: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name, labels } });
    await until(
      `service account of ${name}`,
      async () => (await this.tryKubectl("-n", name, "get", "sa", "default")).status === 0,
    );
  }

  /** Its watches are cut, and for some seconds it answers nobody. */
  restartApiServer(): Promise<void> {
    return this.#script("restart-apiserver.sh", () => undefined);
  }

  /** A kubeconfig of a service account of its own, whose token comes from a credential plugin. */
  async userOf(namespace: string, name: string): Promise<string> {
    await this.kubectl("-n", namespace, "create", "serviceaccount", name);
    const token = (await this.kubectl("-n", namespace, "create", "token", name)).trim();
    const apiVersion = "client.authentication.k8s.io/v1";
    const credential = JSON.stringify({ apiVersion, kind: "ExecCredential", status: { token } });
    const config = {
      apiVersion: "v1",
      kind: "Config",
      "current-context": name,
      contexts: [{ name, context: { cluster: "c", user: name, namespace } }],
      clusters: [{ name: "c", cluster: { server: this.server, "certificate-authority": join(data, "pki/ca.crt") } }],
      users: [{ name, user: { exec: { apiVersion, command: "echo", args: [credential], interactiveMode: "Never" } } }],
    };
    const file = join(this.#work, `${namespace}-${name}.kubeconfig`);
    writeFileSync(file, JSON.stringify(config));
    return file;
  }

  readonly server = "https://10.240.0.11:6443";

  /** A folder for files of tests. */
  get scratch(): string {
    return this.#work;
  }

  /** `kloak` of this clone, on this machine. */
  kloak(...args: readonly string[]): Promise<Output> {
    return this.#run(join(projectRoot, "bin/kloak"), args);
  }

  get node(): { readonly kubeconfig: string; readonly data: string } {
    return { kubeconfig: join(data, "admin.kubeconfig"), data };
  }

  /** Runs a command line as a user of the cluster does, in the root of the tree. */
  sh(line: string): Promise<Output> {
    return this.#run("sh", ["-c", line]);
  }

  /** Runs a command in the network and mount namespaces of a node. */
  onNode(name: string, ...command: readonly string[]): Promise<Output> {
    const pid = readFileSync(join(data, `${name}.pid`), "utf8").trim();
    return this.#run("nsenter", ["-t", pid, "-n", "-m", "--", ...command]);
  }

  async #run(file: string, args: readonly string[]): Promise<Output> {
    const env = { ...process.env, PATH: path, KUBECONFIG: join(data, "admin.kubeconfig") };
    try {
      const options = { env, cwd: projectRoot, maxBuffer: 64 * 1024 * 1024, timeout: 180_000 };
      const { stdout, stderr } = await run(file, args, options);
      return { stdout, stderr, status: 0 };
    } catch (error) {
      const {
        stdout = "",
        stderr = String(error),
        code,
      } = error as { stdout?: string; stderr?: string; code?: number };
      return { stdout, stderr, status: typeof code === "number" ? code : 1 };
    }
  }

  async #bringImage(say: (message: string) => void): Promise<void> {
    const rootfs = join(this.#work, "rootfs");
    const archive = join(this.#work, "kloak.tar");
    await this.#script(join(projectRoot, "image/rootfs"), say, rootfs);
    await this.#script("image.sh", say, image, rootfs, archive, ...entrypoint);
    rmSync(rootfs, { recursive: true });
    await this.#script("add-image.sh", say, archive);
    rmSync(archive);
  }

  /** Says what the script says; @throws Error if it fails */
  #script(name: string, say: (message: string) => void, ...args: readonly string[]): Promise<void> {
    const file = name.startsWith("/") ? name : join(scripts, name);
    return new Promise((resolve, reject) => {
      // Node 24 first: the image of test programs takes the `node` of PATH.
      const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, PATH: path } });
      let last = "";
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding("utf8").on("data", (text: string) => {
          last = (last + text).slice(-2000);
          for (const line of text.split("\n")) if (line !== "") say(line);
        });
      child.on("error", reject);
      child.on("close", (status) =>
        status === 0 ? resolve() : reject(new Error(`${name} failed (${status}): ${last}`)),
      );
    });
  }
}

function imageEntrypoint(): readonly string[] {
  const file = join(projectRoot, "image/Dockerfile");
  const json = /^ENTRYPOINT (\[.*\])$/m.exec(readFileSync(file, "utf8"))?.[1];
  if (json === undefined) throw new Error(`no ENTRYPOINT in ${file}`);
  return JSON.parse(json) as string[];
}

/** Waits until `condition` holds. */
export async function until(what: string, condition: () => Promise<boolean>, deadlineMs = 60_000): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`waited ${deadlineMs / 1000} s in vain for ${what}`);
    await delay(100);
  }
}

/** Whether the machine has what a cluster needs; a test that cannot run must fail and say why. */
export function requireCluster(): void {
  for (const tool of ["go", "ip", "unshare", "openssl"]) {
    try {
      execFileSync("sh", ["-c", `command -v ${tool}`], { stdio: "ignore" });
    } catch {
      throw new Error(`the cluster suite needs ${tool}: run scripts/setup, or install it`);
    }
  }
  if (!existsSync("/sys/fs/cgroup")) throw new Error("the cluster suite needs cgroups at /sys/fs/cgroup");
}
