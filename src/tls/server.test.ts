/* What strangers may do to a server of ours, over real sockets. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import { request } from "node:https";
import { connect, type Socket } from "node:net";
import { after, before, test } from "node:test";
import { connect as tlsConnect } from "node:tls";
import { makeAuthority, makeServerCertificate, validFor } from "../controller/certificates.ts";
import { serveHealth } from "../health.ts";
import { until } from "../kube/testing.ts";
import { HttpError, HttpsServer } from "./server.ts";

let server: HttpsServer;
let ca: string;
const warnings: string[] = [];
before(async () => {
  const authority = await makeAuthority("test", validFor(3600_000));
  const { certificate, key } = await makeServerCertificate(authority, ["127.0.0.1"], validFor(3600_000));
  ca = authority.certificate;
  const identity = { certificate, key, trust: ca };
  server = await HttpsServer.listen({
    certificates: { identity, onChange: () => undefined, run: () => Promise.resolve() },
    host: "127.0.0.1",
    port: 0,
    routes: {
      "POST /echo": ({ json }) => json(),
      "GET /fail": () => Promise.reject(new Error("value of a secret")),
      "GET /no": () => Promise.reject(new HttpError(403, "not for you")),
    },
    warn: (message) => warnings.push(message),
  });
});
const open: Socket[] = [];
after(async () => {
  for (const socket of open) socket.destroy();
  await server.close();
});

function keep<T extends Socket>(socket: T): T {
  open.push(socket);
  socket.on("error", () => undefined).resume();
  return socket;
}

async function ask(
  method: string,
  path: string,
  body?: string,
): Promise<{ status: number; text: string; close: boolean }> {
  const outgoing = request({ host: "127.0.0.1", port: server.port, method, path, ca, agent: false }).end(body);
  const [response] = (await once(outgoing, "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of response.setEncoding("utf8") as AsyncIterable<string>) text += chunk;
  return { status: response.statusCode ?? 0, text, close: response.headers.connection === "close" };
}

for (const [what, method, path, body, status, text] of [
  ["JSON", "POST", "/echo", '{"a":1}', 200, /^\{"a":1\}$/],
  ["no JSON", "POST", "/echo", "{", 400, /is not JSON/],
  ["deep nesting", "POST", "/echo", "[".repeat(1_000_000), 400, /is not JSON/],
  ["too long a body", "POST", "/echo", `"${"x".repeat(9 << 20)}"`, 413, /more than 8388608 bytes/],
  ["a path that is none", "GET", "//[", undefined, 400, /the path is none/],
  ["what is not there", "DELETE", "/echo", undefined, 404, /there is no DELETE \/echo/],
  ["what fails", "GET", "/fail", undefined, 500, /^\{"error":"something went wrong: the log says what"\}$/],
] as const)
  test(`${what} is answered with ${status}`, async () => {
    const answer = await ask(method, path, body);
    assert.equal(answer.status, status);
    assert.match(answer.text, text);
  });

test("whoever is refused has to connect anew", async () => {
  assert.equal((await ask("GET", "/no")).close, true);
});

test("who says nothing, or says it slowly, takes nobody's place, and goes when there are too many", async () => {
  let ended = 0;
  for (let i = 0; i < 700; i++) {
    const socket = keep(connect(server.port, "127.0.0.1"));
    socket.on("close", () => (ended += 1));
    if (i % 3 === 0) socket.write("16030102");
    await once(socket, "connect");
  }
  await until("the oldest to be ended", () => ended >= 700 - 512);
  assert.equal((await ask("POST", "/echo", "1")).status, 200);
});

test("a handshake, headers and a body have to come in time", async () => {
  const slow = [
    keep(connect(server.port, "127.0.0.1")),
    ...["GET / HTTP/1.1\r\nX: ", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{"].map((text) => {
      const socket = keep(tlsConnect({ host: "127.0.0.1", port: server.port, ca }));
      socket.write(text);
      return socket;
    }),
  ];
  await Promise.all(slow.map((socket) => once(socket, "close")));
});

test("many large bodies at once are refused, and then no more", async () => {
  const large = Array.from({ length: 10 }, () => {
    const socket = keep(tlsConnect({ host: "127.0.0.1", port: server.port, ca }));
    let said = "";
    socket.on("data", (chunk: Buffer) => (said += chunk.toString()));
    socket.write(`POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 8388608\r\n\r\n"${"x".repeat(8_000_000)}`);
    return { socket, status: () => /HTTP\/1\.1 (\d+)/.exec(said)?.[1] };
  });
  await until("a refusal", () => large.some(({ status }) => status() === "503"));
  for (const { socket } of large) socket.destroy();
  let answer = await ask("POST", "/echo", `"${"y".repeat(8_000_000)}"`);
  for (const end = performance.now() + 20_000; answer.status !== 200 && performance.now() < end; )
    answer = await ask("POST", "/echo", `"${"y".repeat(8_000_000)}"`);
  assert.equal(answer.status, 200);
});

test("health is told however many hold connections", async () => {
  const health = await serveHealth({
    port: 0,
    isReady: () => true,
    notReady: "",
    metrics: () => Promise.resolve({ type: "text/plain", text: "" }),
  });
  const { port } = health.address() as { port: number };
  for (let i = 0; i < 100; i++) {
    const socket = keep(connect(port, "127.0.0.1"));
    socket.write("GET /healthz HTTP/1.1\r\nX: ");
    await once(socket, "connect");
  }
  const [response] = (await once(get({ host: "127.0.0.1", port, path: "/healthz", agent: false }), "response")) as [
    IncomingMessage,
  ];
  assert.equal(response.statusCode, 200);
  response.resume();
  for (const socket of open) socket.destroy();
  await new Promise((resolve) => health.close(resolve));
});
