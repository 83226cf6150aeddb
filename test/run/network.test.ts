/* The command's network: as the host's, with the loopback of its own, and doors between the two. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { createNamespace, type Namespace } from "../../src/lab/namespace.ts";
import { kloak, Running, until } from "./kloak.ts";

const directory = mkdtempSync(join(tmpdir(), "kloak-net-"));
const closing: (() => unknown)[] = [() => rmSync(directory, { recursive: true, force: true })];
after(async () => {
  for (const close of closing.toReversed()) await close();
});

let machine: Namespace;
before(async () => {
  machine = createNamespace();
  closing.push(() => machine.close());
  const script =
    "import socket,threading\n" +
    "def serve(s):\n" +
    "  while True:\n" +
    "    c,a=s.accept(); c.sendall(a[0].encode()); c.close()\n" +
    "for f,a in ((socket.AF_INET,'0.0.0.0'),(socket.AF_INET6,'::')):\n" +
    "  s=socket.socket(f); f==socket.AF_INET6 and s.setsockopt(41,26,1); s.setsockopt(1,2,1); s.bind((a,7000)); s.listen()\n" +
    "  threading.Thread(target=serve,args=(s,)).start()\n" +
    "print('ready',flush=True)\n";
  await service(machine.within(["python3", "-c", script]));
});

/** Starts a server that says `ready`. */
async function service(argv: readonly string[]): Promise<void> {
  const [file = "", ...args] = argv;
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  closing.push(() => child.kill("SIGKILL"));
  await new Promise<void>((resolve, reject) => {
    child.stdout.once("data", () => resolve());
    child.once("error", reject);
    child.once("exit", () => reject(new Error(`${file} ended`)));
  });
}

/** Python that tells each client its address. */
const serve = (address: string, port: number) =>
  `import socket\ns=socket.create_server(("${address}",${port}))\nprint("ready",flush=True)\nwhile True:\n  c,a=s.accept(); c.sendall(a[0].encode()); c.close()`;

/** Python that prints what a server says. */
const ask = (host: string, port: number | string) =>
  `import socket; print(socket.create_connection(("${host}", ${port}), 10).recv(99).decode())`;

test("other machines are reached over IPv4 and IPv6, and see the host", async () => {
  const { ipv4, ipv6 } = machine;
  const outcome = await kloak(["run", "--", "python3", "-c", `${ask(ipv4.inside, 7000)}\n${ask(ipv6.inside, 7000)}`]);
  assert.equal(outcome.stdout, `${ipv4.host}\n${ipv6.host}\n`, outcome.stderr);
});

test("a firewall of the host that drops what it does not know lets the command through, and is as before afterwards", async () => {
  const host = createNamespace();
  closing.push(() => host.close());
  const firewall = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; } }";
  const script = `nft '${firewall}'; before=$(nft list ruleset); "$@"; status=$?; [ "$before" = "$(nft list ruleset)" ] && echo same; exit $status`;
  // Only a packet that is forwarded meets that chain: the command's to the machine behind the firewall's host.
  const command = ["run", "--", "python3", "-c", ask(host.ipv4.host, 7001)];
  await service(["python3", "-c", serve(host.ipv4.host, 7001)]);
  const outcome = await kloak(command, { within: host.within(["sh", "-c", script, "sh"]) });
  assert.equal(outcome.stdout, `${host.ipv4.inside}\nsame\n`, outcome.stderr);
});

test("several runs side by side do not disturb each other", async () => {
  const script = `${ask(machine.ipv4.inside, 7000)}\nprint("up", flush=True)\ninput()\n${ask(machine.ipv6.inside, 7000)}`;
  const runs = Array.from({ length: 4 }, () => new Running(["run", "--", "python3", "-c", script]));
  for (const run of runs) await run.says("up");
  for (const run of runs) {
    run.process.stdin?.end("\n");
    const outcome = await run.ended;
    assert.equal(outcome.stdout, `${machine.ipv4.host}\nup\n${machine.ipv6.host}\n`, outcome.stderr);
  }
});

test("the loopback is the command's own", async () => {
  const server = await listening((socket) => socket.end("host"));
  const { port } = server.address() as { port: number };
  const outcome = await kloak(["run", "--", "python3", "-c", ask("127.0.0.1", port)]);
  assert.match(outcome.stderr, /ConnectionRefusedError/);
});

for (const address of ["127.0.0.1", "localhost"]) {
  test(`--host-port: a service on the host's loopback is reached at ${address}`, async () => {
    const server = await listening((socket) => socket.end("host"));
    const { port } = server.address() as { port: number };
    const outcome = await kloak(["run", "--host-port", String(port), "--", "python3", "-c", ask(address, port)]);
    assert.equal(outcome.stdout, "host\n", outcome.stderr);
  });
}

test("--host-port: a service that is not there refuses", async () => {
  const port = await freePort();
  const script = `import socket\ntry: print(socket.create_connection(("127.0.0.1", ${port}), 10).recv(9))\nexcept ConnectionResetError: print("reset")`;
  const outcome = await kloak(["run", "--host-port", String(port), "--", "python3", "-c", script]);
  assert.equal(outcome.stdout, "reset\n", outcome.stderr);
});

/** Python that answers one connection after the other at this address with what it was sent, upper case. */
const shout = (address: string, port: number) =>
  `import socket\ns=socket.create_server(("${address}", ${port}), family=socket.AF_INET6 if ":" in "${address}" else socket.AF_INET)\n` +
  `print("up", flush=True)\nwhile True:\n  c,_=s.accept()\n  data=b""\n  while (d:=c.recv(65536)): data+=d\n  c.sendall(data.upper()); c.close()`;

for (const address of ["127.0.0.1", "::1", "0.0.0.0"]) {
  test(`--publish: a command that listens at ${address} is reached at the host's loopback`, async () => {
    const port = await freePort();
    const running = new Running(["run", "--publish", `${port}:8000`, "--", "python3", "-c", shout(address, 8000)]);
    await running.says("up");
    const text = "a".repeat(300_000);
    assert.equal(await exchange("127.0.0.1", port, text), text.toUpperCase());
    assert.equal(await exchange("::1", port, "b"), "B");
    running.process.kill("SIGTERM");
    await running.ended;
    await assert.rejects(exchange("127.0.0.1", port, ""), { code: "ECONNREFUSED" });
  });
}

test("--publish: a port on which nobody listens resets", async () => {
  const port = await freePort();
  const running = new Running(["run", "--publish", String(port), "--", "sh", "-c", "echo up; read line"]);
  await running.says("up");
  await assert.rejects(exchange("127.0.0.1", port, "x"), { code: "ECONNRESET" });
  running.process.stdin?.end("\n");
  await running.ended;
});

test("--publish: a port that is taken is an error that says what to do, before anything starts", async () => {
  const server = await listening(() => undefined);
  const { port } = server.address() as { port: number };
  const outcome = await kloak(["run", "--publish", String(port), "--", "echo", "started"]);
  assert.equal(outcome.status, 125);
  assert.equal(outcome.stdout, "");
  assert.match(outcome.stderr, new RegExp(`Port ${port} cannot be published .* --publish HOSTPORT:${port}`));
});

test("--publish auto follows what the command listens on", async () => {
  const port = await freePort();
  const running = new Running(["run", "--publish", "auto", "--", "python3", "-c", shout("127.0.0.1", port)]);
  await running.says("up");
  await until("the port to be published", () => running.stderr.includes(`port ${port} of the command is published`));
  assert.equal(await exchange("127.0.0.1", port, "c"), "C");
  running.process.kill("SIGTERM");
  await running.ended;
});

const viaStream = `import socket,struct
q=b"\\x12\\x34\\x01\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3any\\4test\\0\\0\\1\\0\\1"
s=socket.create_connection(("RESOLVER",53),10); s.sendall(struct.pack("!H",len(q))+q); print(socket.inet_ntoa(s.recv(999)[-4:]))`;

for (const resolver of ["127.0.0.53", "127.0.0.1"]) {
  test(`names resolve where the host's resolver listens at ${resolver} alone`, async () => {
    const host = createNamespace();
    closing.push(() => host.close());
    const file = join(directory, `resolv-${resolver}.conf`);
    writeFileSync(file, `nameserver ${resolver}\noptions timeout:5 attempts:1\n`);
    await service(host.within(["python3", join(import.meta.dirname, "name-server.py"), resolver, "192.0.2.77"]));
    const within = host.within(["sh", "-c", 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"', "sh", file]);
    const script = `getent ahostsv4 some.name.test | head -1; python3 -c '${viaStream.replace("RESOLVER", resolver)}'`;
    const outcome = await kloak(["run", "--", "sh", "-c", script], { within });
    assert.match(outcome.stdout, /^192\.0\.2\.77 .*\n192\.0\.2\.77\n$/, outcome.stderr);
  });
}

function listening(connected: (socket: Socket) => void): Promise<Server> {
  const server = createServer(connected);
  closing.push(() => server.close());
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

async function freePort(): Promise<number> {
  const server = await listening(() => undefined);
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Sends a text, ends, and resolves with all that comes back. */
function exchange(host: string, port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect({ host, port, allowHalfOpen: true }, () => socket.end(text));
    socket.setEncoding("utf8");
    socket.on("data", (data: string) => (answer += data));
    socket.on("error", reject);
    socket.on("end", () => resolve(answer));
  });
}
