/*
 * Agents die, hang, are replaced and are refused while 64 connections are busy: every request arrives with the secret,
 * none fails, and none is seen without. Needs root.
 */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Namespace } from "../../src/lab/namespace.ts";
import { loadNative, projectRoot } from "../../src/dataplane/native.ts";
import { until } from "../run/kloak.ts";
import { header } from "../support/requests.ts";
import { host, Site } from "./site.ts";

const value = "sk-live-Vq7Tn2RkXw9LbN6cHs1Zp4M";
const connections = 64;
let site: Site;
let workload: Namespace;
let placeholder: string;

before(async () => {
  ({ site, workload, placeholder } = await Site.protecting(value));
});
after(() => site?.close());

/** 64 connections with one request after the other on each, until told to end: numbers of answers on its output. */
const busy = `
import http.client, os, socket, ssl, sys, threading
ca, address, port, name = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
stop, failed, counts = threading.Event(), [], [0] * ${connections}
ready = threading.Barrier(${connections} + 1)

class Connection(http.client.HTTPSConnection):
    def connect(self):
        self.sock = context.wrap_socket(socket.create_connection((address, int(port)), 60), server_hostname=name)

def work(me):
    connection = Connection(name, int(port), timeout=60)
    try:
        connection.connect()
        ready.wait()
        while not stop.is_set():
            connection.request("GET", f"/{me}", headers={"Authorization": "Bearer " + os.environ["KEY"]})
            if connection.getresponse().read() != b"ok\\n": failed.append("answer")
            counts[me] += 1
            stop.wait(0.02)
    except Exception as error:
        failed.append(repr(error))
        ready.abort()

threads = [threading.Thread(target=work, args=(me,)) for me in range(${connections})]
for thread in threads: thread.start()
ready.wait()
print("up", flush=True)
for line in sys.stdin:
    print("least", min(counts), flush=True)
stop.set()
for thread in threads: thread.join()
print("failed", failed[:3], len(failed), "answers", sum(counts), "least", min(counts), flush=True)
`;

/** Runs `work` while all connections are busy, before, in it and after. */
async function whileBusy(work: () => Promise<void>, others = 0): Promise<void> {
  await site.server.take();
  const argv = ["python3", "-c", busy, site.authority.caFile, site.machine.ipv4.inside, String(site.port), host];
  const client = site.client(workload, argv, { KEY: placeholder });
  const least = async (count: number) => {
    await until(`${count} answers on each connection; it said ${client.output}${client.errors}`, () => {
      client.line("");
      const said = [...client.output.matchAll(/least (\d+)/g)].map(([, number]) => Number(number));
      return Math.max(-1, ...said) >= count;
    });
    return Math.max(...[...client.output.matchAll(/least (\d+)/g)].map(([, number]) => Number(number)));
  };
  const at = await least(3);
  await work();
  const then = await least(at + 3);
  await least(then + 3);
  client.child.stdin?.end();
  assert.equal(await client.ended, 0, client.errors);
  assert.match(client.output, /failed \[\] 0 answers/);
  const { requests, faults } = await site.server.take();
  assert.deepEqual(faults, []);
  const keys = new Set(requests.map((request) => header(request, "authorization")));
  assert.deepEqual([...keys], [`Bearer ${value}`], "every request had the secret");
  const made = new Set(requests.map(({ connection }) => connection)).size;
  assert.equal(made, connections + others, "no connection was made anew");
}

async function asks(path: string): Promise<string> {
  const client = site.client(workload, site.curl(placeholder, path));
  assert.equal(await client.ended, 0, client.errors);
  const { requests } = await site.server.take();
  const request = requests.find((each) => each.path === `/${path}`);
  assert.ok(request);
  return header(request, "authorization");
}

const current = async () => Number((await site.ask({ do: "status" }))["pid"]);

test("an agent that is killed is missed by nobody, and programs that start meanwhile are protected", async () => {
  const pid = await current();
  await whileBusy(async () => {
    process.kill(pid, "SIGKILL");
    await until("it is gone", async () => (await site.ask({ do: "status" }).catch(() => null)) === null);
    for (const name of ["one", "two"]) {
      const client = site.client(workload, site.curl(placeholder, name));
      assert.equal(await client.ended, 0, client.errors);
    }
  }, 2);
  const before = site.audit().length;
  await site.agent();
  await until("what happened meanwhile is in the trail", () => site.audit().length > before);
  assert.equal(await asks("after"), `Bearer ${value}`);
});

test("one that takes over while all is busy relieves the other, which leaves everything in place", async () => {
  const old = await site.agent();
  await whileBusy(async () => {
    const next = await site.agent();
    assert.deepEqual(await old.exit(), { status: 0, signal: null }, old.said);
    assert.match(next.said, /goes on with the data plane/);
  });
  const status = await site.ask({ do: "status" });
  assert.deepEqual(status["secrets"], [{ name: "KEY", number: 1 }]);
});

test("one that hangs is ended by its successor", async () => {
  const old = await site.agent();
  await whileBusy(async () => {
    old.child.kill("SIGSTOP");
    const next = await site.agent();
    assert.match(next.said, /hangs and is ended/);
    assert.equal((await old.exit()).signal, "SIGKILL");
  });
});

test("an agent of another layout is refused, says why, and disturbs nobody", async () => {
  const native = loadNative();
  const path = join(site.bpffs.state, "v1/maps/manifest");
  const ours = native.mapOpen(path, "manifest");
  const object = native.objectOpen(join(projectRoot, "build/bpf/ledger.bpf.o"));
  native.objectLoad(object);
  const theirs = native.objectMap(object, "manifest");
  const text = native
    .mapLookup(ours, Buffer.alloc(4))
    ?.toString("latin1")
    .replace(/"flows":"\w{16}"/, `"flows":"${"0".repeat(16)}"`);
  native.mapUpdate(theirs, Buffer.alloc(4), Buffer.from(text ?? "", "latin1"));
  rmSync(path);
  native.mapPin(theirs, path);
  const pid = await current();
  await whileBusy(async () => {
    const refused = await site.agent();
    assert.equal((await refused.exit()).status, 1);
    assert.match(refused.said, /made by version 0\.1\.0 of Kloak and is arranged differently: map flows\. It goes on/);
  });
  assert.equal(await current(), pid, "who was there is there still");
  rmSync(path);
  native.mapPin(ours, path);
  for (const handle of [ours, theirs]) native.mapClose(handle);
  native.objectClose(object);
});

test("what is wiped under load is noticed and made whole", async () => {
  const agent = await site.agent();
  await whileBusy(async () => {
    rmSync(site.bpffs.state, { recursive: true });
    await until("it is there again", () => agent.said.includes("had been removed: it is there again"));
  });
  const next = await site.agent();
  assert.match(next.said, /goes on with the data plane/);
  assert.equal(await asks("wiped"), `Bearer ${value}`);
});

test("numbers are not given out again, and a secret that is unchanged keeps its own", async () => {
  await site.bind("OTHER", "sk-live-8Wd3Yt6Gx1Jv5Bq0Ks9Zu2", workload);
  const numbers = async () => (await site.ask({ do: "status" }))["secrets"] as { name: string; number: number }[];
  const other = (await numbers()).find(({ name }) => name === "OTHER")?.number ?? 0;
  await site.ask({ do: "unbind", name: "OTHER" });
  await site.agent();
  await site.bind("THIRD", "sk-live-1Rf7Mh4Cz8Pn2Lx6Ta3Ve5", workload);
  const after = await numbers();
  assert.ok((after.find(({ name }) => name === "THIRD")?.number ?? 0) > other);
  assert.equal(after.find(({ name }) => name === "KEY")?.number, 1);
});
