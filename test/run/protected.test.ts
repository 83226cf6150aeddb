/* A run with a secret: the server gets it, and nothing that the command can read holds it. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { AuditRecord } from "../../src/audit/index.ts";
import { type Authority, createAuthority } from "../../src/lab/certificates.ts";
import { createNamespace, type Namespace } from "../../src/lab/namespace.ts";
import { LabServer } from "../../src/lab/server.ts";
import { kloak, Running, until } from "./kloak.ts";

const host = "api.kloak.test";
const value = "sk-live-4Zr8QmT2vXw9LbN6cHs1";
const directory = mkdtempSync(join(tmpdir(), "kloak-protected-"));
let machine: Namespace;
let authority: Authority;
let server: LabServer;
let port: number;

before(async () => {
  machine = createNamespace();
  authority = createAuthority(directory, "ca");
  const certificate = authority.issue("server", { dns: [host] });
  server = await LabServer.start(machine, [{ name: "https", certificate }]);
  port = server.port("https");
});
after(async () => {
  await server?.close();
  machine?.close();
  rmSync(directory, { recursive: true, force: true });
});

const request = (variable: string) =>
  `curl -sS --cacert ${authority.caFile} --resolve ${host}:${port}:${machine.ipv4.inside} -H "X-Api-Key: ${variable}" https://${host}:${port}/`;

function trail(name: string): { options: string[]; records: () => AuditRecord[] } {
  const file = join(directory, name);
  const records = () =>
    readFileSync(file, "utf8")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as AuditRecord);
  return { options: ["--audit", file, "--ca", authority.caFile], records };
}

async function keysReceived(): Promise<string[]> {
  const { requests } = await server.take();
  return requests.flatMap(({ headers }) =>
    headers.filter(([name]) => name.toLowerCase() === "x-api-key").map(([, text]) => text),
  );
}

test("curl holds the placeholder, the server gets the secret, the trail says so", async () => {
  const { options, records } = trail("curl");
  const script = `echo "$KEY"; ${request("$KEY")}`;
  const outcome = await kloak(["run", ...options, "--secret", `KEY@${host}`, "--", "sh", "-c", script], {
    env: { KEY: value },
  });
  assert.equal(outcome.status, 0, outcome.stderr);
  assert.match(outcome.stdout, /^kloak:\S+\nok\n$/);
  assert.deepEqual(await keysReceived(), [value]);
  assert.deepEqual(
    records().map(({ outcome, secret, slot, destination, workload }) => [
      outcome,
      secret,
      slot,
      destination.host,
      workload?.kind,
    ]),
    [["substituted", "KEY", "header:x-api-key", host, "run"]],
  );
});

test("the value is in no variable of the command: not its source, nor another that holds it", async () => {
  const env = { SOURCE: value, OTHER: `https://user:${value}@a.test/`, PLAIN: "plain" };
  const outcome = await kloak(["run", "--secret", `KEY@${host}=env:SOURCE`, "--", "env"], { env });
  const variables = new Map(
    outcome.stdout.split("\n").map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
  );
  assert.ok(!outcome.stdout.includes(value));
  assert.equal(variables.has("SOURCE"), false);
  assert.equal(variables.get("PLAIN"), "plain");
  assert.equal(variables.get("OTHER"), `https://user:${variables.get("KEY")}@a.test/`);
});

test("the file that the value came from shows the placeholder to the command, and the value to the host", async () => {
  const file = join(directory, "key");
  writeFileSync(file, `${value}\n`);
  const script = `cat ${file}; echo; echo "$KEY"`;
  const outcome = await kloak(["run", "--secret", `KEY@${host}=file:${file}`, "--", "sh", "-c", script]);
  const [shown, variable] = outcome.stdout.trim().split("\n");
  assert.equal(shown, variable);
  assert.ok(!outcome.stdout.includes(value), outcome.stderr);
  assert.equal(readFileSync(file, "utf8"), `${value}\n`);
});

test("several runs with secrets side by side each use their own", async () => {
  const script = `echo up; read line; ${request("$KEY")}`;
  const runs = [1, 2, 3].map((number) => {
    const { options } = trail(`side-${number}`);
    return new Running(["run", ...options, "--secret", `KEY@${host}`, "--", "sh", "-c", script], {
      env: { KEY: `${value}-${number}` },
    });
  });
  for (const run of runs) await run.says("up");
  for (const run of runs) run.process.stdin?.end("\n");
  for (const run of runs) assert.equal((await run.ended).status, 0, run.stderr);
  assert.deepEqual(
    (await keysReceived()).sort(),
    [1, 2, 3].map((number) => `${value}-${number}`),
  );
});

test("a library that is opened later is hooked before it is used", async () => {
  const { options } = trail("dlopen");
  const code =
    `import http.client,os,socket,ssl; c=ssl.create_default_context(cafile="${authority.caFile}")\n` +
    `s=c.wrap_socket(socket.create_connection(("${machine.ipv4.inside}",${port})),server_hostname="${host}")\n` +
    `s.sendall(("GET / HTTP/1.1\\r\\nHost: ${host}\\r\\nX-Api-Key: %s\\r\\n\\r\\n" % os.environ["KEY"]).encode()); s.recv(9)`;
  const outcome = await kloak(["run", ...options, "--secret", `KEY@${host}`, "--", "python3", "-c", code], {
    env: { KEY: value },
  });
  assert.equal(outcome.status, 0, outcome.stderr);
  assert.deepEqual(await keysReceived(), [value]);
});

test("a command in a mount namespace of its own is hooked as well", async () => {
  const { options } = trail("unshare");
  const command = ["unshare", "--map-root-user", "--mount", "sh", "-c", request("$KEY")];
  const outcome = await kloak(["run", ...options, "--secret", `KEY@${host}`, "--", ...command], {
    env: { KEY: value },
  });
  assert.equal(outcome.status, 0, outcome.stderr);
  assert.deepEqual(await keysReceived(), [value]);
});

test("a program that lies in no file system is hooked once it runs, and the trail says from when on", async () => {
  const { options, records } = trail("memfd");
  const program = `
    const https = require("node:https"), fs = require("node:fs");
    console.log("up");
    process.stdin.once("data", () => {
      const options = { host: "${machine.ipv4.inside}", port: ${port}, servername: "${host}", ca: fs.readFileSync("${authority.caFile}"),
        headers: { host: "${host}", "x-api-key": process.env.KEY } };
      https.get(options, (answer) => answer.on("data", () => process.exit()));
    });`;
  const launch = `import os, sys
program = os.memfd_create("program")
with open(sys.argv[1], "rb") as file: os.sendfile(program, file.fileno(), 0, 1 << 30)
os.execve(program, ["program", "-e", sys.argv[2]], os.environ)`;
  const command = ["python3", "-c", launch, process.execPath, program];
  const running = new Running(["run", ...options, "--secret", `KEY@${host}`, "--", ...command], {
    env: { KEY: value },
  });
  await running.says("up");
  const late = () => records().filter(({ outcome }) => outcome === "unprotected");
  await until("it is hooked", () => late().length > 0);
  assert.match(late()[0]?.detail ?? "", /had started before the TLS code of .*program.* was hooked/);
  running.process.stdin?.end("go\n");
  assert.equal((await running.ended).status, 0, running.stderr);
  assert.deepEqual(await keysReceived(), [value]);
});

test("a program whose TLS code is unknown runs, sends the placeholder, and is in the trail as unprotected", async () => {
  const { options, records } = trail("unknown");
  const hosts = `printf '127.0.0.1 localhost\\n${machine.ipv4.inside} ${host}\\n' >/tmp/kloak-hosts-$$; mount --bind /tmp/kloak-hosts-$$ /etc/hosts; rm /tmp/kloak-hosts-$$`;
  const script = `${hosts}; printf 'GET / HTTP/1.1\\r\\nHost: ${host}\\r\\nX-Api-Key: %s\\r\\nConnection: close\\r\\n\\r\\n' "$KEY" >/tmp/kloak-request-$$; tstclnt -D -o -A /tmp/kloak-request-$$ -h ${host} -p ${port}; rm /tmp/kloak-request-$$; exit 6`;
  const outcome = await kloak(
    ["run", ...options, "--secret", `KEY@${host}`, "--", "unshare", "--map-root-user", "--mount", "sh", "-c", script],
    {
      env: { KEY: value },
    },
  );
  assert.equal(outcome.status, 6, outcome.stderr);
  assert.match(outcome.stdout, /ok/);
  const [key] = await keysReceived();
  assert.match(key ?? "", /^kloak:/);
  const unprotected = records().filter((record) => record.outcome === "unprotected");
  assert.deepEqual(
    unprotected.map(({ tls, workload }) => [tls.stack, workload?.kind === "run" && workload.command]),
    [["nss", "tstclnt"]],
  );
  assert.match(outcome.stderr, /tstclnt: TLS code of .*libssl3.* is not hooked/);
});

test("when kloak and its launcher are killed, the command's network is dead within the lease", async () => {
  const script = `import socket
def reach(): socket.create_connection(("${machine.ipv4.inside}",${port}),2).close()
reach()
print("up",flush=True)
try:
  while True: reach()
except OSError: print("cut",flush=True)`;
  // A grandchild outlives them both: the launcher's death kills the command alone.
  const command = ["sh", "-c", `python3 -c '${script}' & wait`];
  const running = new Running(["run", "--ca", authority.caFile, "--secret", `KEY@${host}`, "--", ...command], {
    env: { KEY: value },
  });
  await running.says("up");
  const { record } = running;
  assert.ok(record?.launcher);
  process.kill(running.pid, "SIGSTOP");
  process.kill(record.launcher.pid, "SIGKILL");
  running.process.kill("SIGKILL");
  assert.ok(!running.stdout.includes("cut"));
  await running.says("cut");
  const clean = await kloak(["doctor", "--clean"]);
  assert.equal(clean.status, 0, clean.stderr);
});
