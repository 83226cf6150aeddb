/* Git's own server (`git http-backend`) over HTTPS, for one user: a process of its own, in the other machine's namespace. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import type { World } from "./world.ts";

export interface GitServer {
  readonly port: number;
  close(): Promise<void>;
}

export interface GitServerPlan {
  /** Folder of the bare repositories. */
  readonly root: string;
  readonly keyFile: string;
  readonly certificateFile: string;
  /** All that is asked for needs `Authorization: Basic` with these. */
  readonly user: string;
  readonly password: string;
}

/** Starts it on the other machine; resolves when it listens. */
export async function startGitServer(world: World, plan: GitServerPlan): Promise<GitServer> {
  const main = fileURLToPath(import.meta.url);
  const [program = "ip", ...args] = world.namespace.within([process.execPath, main, JSON.stringify(plan)]);
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  const port = await new Promise<number>((resolve, reject) => {
    child.stdout.once("data", (line: Buffer) => resolve(Number(line.toString())));
    child.once("exit", () => reject(new Error("the git server ended before it listened")));
  });
  return { port, close: () => ended(child) };
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.stdin?.end();
  await exit;
}

function serve({ root, keyFile, certificateFile, user, password }: GitServerPlan): void {
  const wanted = `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
  const backend = `${execFileSync("git", ["--exec-path"], { encoding: "utf8" }).trim()}/git-http-backend`;
  const server = createServer(
    { key: readFileSync(keyFile), cert: readFileSync(certificateFile) },
    (request, response) => {
      if (request.headers.authorization !== wanted) {
        response.writeHead(401, { "www-authenticate": 'Basic realm="git"' }).end();
        return;
      }
      const [path = "", query = ""] = (request.url ?? "").split("?");
      const { method = "", headers } = request;
      const git = spawn(backend, {
        env: {
          GIT_PROJECT_ROOT: root,
          GIT_HTTP_EXPORT_ALL: "1",
          PATH_INFO: path,
          QUERY_STRING: query,
          REQUEST_METHOD: method,
          CONTENT_TYPE: headers["content-type"] ?? "",
          HTTP_CONTENT_ENCODING: headers["content-encoding"] ?? "",
          GIT_PROTOCOL: String(headers["git-protocol"] ?? ""),
          REMOTE_USER: user,
          ...(headers["content-length"] === undefined ? {} : { CONTENT_LENGTH: headers["content-length"] }),
        },
        stdio: ["pipe", "pipe", "inherit"],
      });
      git.stdin.on("error", () => undefined); // it need not read all
      request.pipe(git.stdin);
      const output: Buffer[] = [];
      git.stdout.on("data", (chunk: Buffer) => output.push(chunk));
      git.on("close", () => {
        const bytes = Buffer.concat(output);
        const end = bytes.indexOf("\r\n\r\n");
        for (const line of bytes.toString("latin1", 0, end).split("\r\n")) {
          const [name = "", value = ""] = line.split(": ");
          if (name === "Status") response.statusCode = Number.parseInt(value, 10);
          else response.setHeader(name, value);
        }
        response.end(bytes.subarray(end + 4));
      });
    },
  );
  server.listen(0, "::", () => console.log((server.address() as AddressInfo).port)); // listens on TCP
  process.stdin.resume().on("end", () => process.exit(0));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) serve(JSON.parse(process.argv[2] ?? "") as GitServerPlan);
