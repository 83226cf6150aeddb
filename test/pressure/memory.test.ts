/*
 * The promise: a command that has less memory than it works with, so that its pages go and come back between a probe and
 * the next, sends the secret or the placeholder, whole, and what it sends otherwise is untouched. Needs root, and the
 * memory controller of cgroups, version 1 or 2.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { AuditRecord } from "../../src/audit/index.ts";
import { type Authority, createAuthority } from "../../src/lab/certificates.ts";
import { createNamespace, type Namespace } from "../../src/lab/namespace.ts";
import { LabServer } from "../../src/lab/server.ts";
import { Running, until } from "../run/kloak.ts";
import { count, header } from "../support/requests.ts";

const host = "api.kloak.test";
const value = "sk-live-7Hn3Wc8Zt5Xq1Kd9Rb4Lp6";
const directory = mkdtempSync(join(tmpdir(), "kloak-memory-"));
let machine: Namespace;
let authority: Authority;
let server: LabServer;
let group: string;

before(async () => {
  machine = createNamespace();
  authority = createAuthority(directory, "ca");
  const certificate = authority.issue("server", { dns: [host] });
  server = await LabServer.start(machine, [{ name: "https", certificate }]);
  group = makeGroup(48 << 20);
});
after(async () => {
  await server?.close();
  machine?.close();
  rmSync(directory, { recursive: true, force: true });
  if (group === undefined) return;
  const members = () => readFileSync(join(group, "cgroup.procs"), "utf8").split("\n").filter(Boolean);
  for (const pid of members()) process.kill(Number(pid), "SIGKILL"); // of a test that has failed
  await until("the group is empty", () => members().length === 0);
  rmdirSync(group);
});

/** A group whose processes may have so many bytes, and no swap to put others into. */
function makeGroup(bytes: number): string {
  const first = "/sys/fs/cgroup/memory";
  const isFirst = existsSync(join(first, "memory.limit_in_bytes"));
  if (!isFirst) writeFileSync("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
  const made = join(isFirst ? first : "/sys/fs/cgroup", `kloak-memory-${process.pid}`);
  mkdirSync(made);
  writeFileSync(join(made, isFirst ? "memory.limit_in_bytes" : "memory.max"), `${bytes}`);
  return made;
}

/** Pages of files that were taken from its processes, and that they wanted back. */
function takenAway(made: string): number {
  return Number(/^workingset_refault_file (\d+)/m.exec(readFileSync(join(made, "memory.stat"), "utf8"))?.[1] ?? 0);
}

/** Requests whose header lies in a mapped file, while other threads read files larger than there is memory for. */
const program = `
import mmap, os, socket, ssl, sys, threading
ca, address, port, name, folder = sys.argv[1:]
text = ("GET / HTTP/1.1\\r\\nHost: %s\\r\\nX-Api-Key: %s\\r\\n\\r\\n" % (name, os.environ["KEY"])).encode()
body = ("POST / HTTP/1.1\\r\\nHost: %s\\r\\nContent-Length: 65536\\r\\n\\r\\n" % name).encode() + bytes(range(256)) * 256
def mapped(file, size, contents=b""):
    with open(os.path.join(folder, file), "w+b") as made:
        made.write(contents); made.truncate(size); made.flush()
        return mmap.mmap(made.fileno(), size)
requests, bodies, large = mapped("requests", 1 << 16, text), mapped("bodies", len(body), body), mapped("large", 256 << 20)
print("up", os.getpid(), flush=True); sys.stdin.readline()
ended = threading.Event()
def thrash():
    at = 0
    while not ended.is_set():
        large[at]; at = (at + 4096) % len(large)
for _ in range(2): threading.Thread(target=thrash, daemon=True).start()
context = ssl.create_default_context(cafile=ca)
def answer(stream):
    got = b""
    while b"ok\\n" not in got:
        piece = stream.recv(4096)
        if not piece: raise SystemExit("no answer")
        got += piece
for _ in range(8):
    with context.wrap_socket(socket.create_connection((address, int(port)), 60), server_hostname=name) as stream:
        for _ in range(5):
            for source, length in ((requests, len(text)), (bodies, len(body))):
                source.madvise(mmap.MADV_DONTNEED)
                stream.sendall(memoryview(source)[:length]); answer(stream)
ended.set()
print("done", flush=True)
os._exit(0)
`;

test("40 requests and uploads out of pages that are taken away and read again", async () => {
  const trail = join(directory, "audit.jsonl");
  const code = join(directory, "program.py");
  writeFileSync(code, program);
  const where = [authority.caFile, machine.ipv4.inside, `${server.port("https")}`, host, directory];
  const options = ["--audit", trail, "--ca", authority.caFile, "--secret", `KEY@${host}`];
  const running = new Running(["run", ...options, "--", "python3", code, ...where], { env: { KEY: value } });
  await running.says("\n");
  const pid = running.stdout.trim().split(" ")[1] ?? "";
  assert.ok(readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(code));
  writeFileSync(join(group, "cgroup.procs"), pid);
  running.process.stdin?.write("go\n");
  const outcome = await running.ended;
  assert.equal(outcome.status, 0, outcome.stderr);
  assert.ok(takenAway(group) > 1000, "pages were taken away and read again");
  const { requests, faults } = await server.take();
  assert.deepEqual(faults, []);
  const keyed = requests.filter(({ method }) => method === "GET").map((request) => header(request, "x-api-key"));
  const whole = count(keyed.map((key) => (key === value ? "secret" : key.startsWith("kloak:") ? "placeholder" : key)));
  const { secret = 0, placeholder = 0, ...neither } = whole;
  assert.deepEqual([neither, secret + placeholder], [{}, 40]);
  assert.ok(secret > 0, "some could be read");
  const uploads = requests.filter(({ method }) => method === "POST");
  const body = Buffer.from(Array.from({ length: 65_536 }, (_, at) => at % 256));
  const digest = createHash("sha256").update(body).digest("hex");
  assert.deepEqual(count(uploads.map(({ bodySha256 }) => bodySha256)), { [digest]: 40 });
  const records = readFileSync(trail, "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as AuditRecord);
  const outcomes = count(records.map((each) => each.outcome));
  assert.deepEqual([outcomes["substituted"] ?? 0, outcomes["refused"] ?? 0], [secret, placeholder]);
});
