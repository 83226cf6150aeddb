import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import fc from "fast-check";
import { FileText, inClusterConnection } from "./connection.ts";
import { KubeError } from "./error.ts";
import { resources } from "./resource.ts";
import { type Asked, refuse, send, UnrulyServer } from "./testing.ts";

let server: UnrulyServer;
before(async () => {
  server = await UnrulyServer.start();
});
after(() => server.close());
beforeEach(() => {
  server.asked.length = 0;
});

const get = (silenceMs = 20_000) => server.client().request("GET", "/api", { silenceMs });

async function linesOf(path: string): Promise<unknown[]> {
  const lines: unknown[] = [];
  for await (const line of server.client().lines(path, {})) lines.push(line);
  return lines;
}

function isError(reason: string, message: RegExp, status?: number): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof KubeError, String(error));
    assert.equal(error.reason, reason);
    assert.match(error.message, message);
    if (status !== undefined) assert.equal(error.status, status);
    return true;
  };
}

type Case = readonly [string, (asked: Asked, response: ServerResponse) => void, string, RegExp];
const endless = (response: ServerResponse, text: string): void => {
  const more = (): void => {
    while (!response.destroyed) if (!response.write(text)) return void response.once("drain", more);
  };
  more();
};
const cases: readonly Case[] = [
  ["refuses", (_, response) => refuse(response, 403, "Forbidden"), "Forbidden", /GET \/api: it is Forbidden/],
  ["is a proxy with a page of its own", (_, r) => r.writeHead(502).end("<html>"), "Http502", /GET \/api: <html>/],
  ["sends no JSON", (_, response) => response.end("{"), "NotJson", /GET \/api/],
  [
    "sends on to another place",
    (_, r) => r.writeHead(307, { location: "https://a.test/" }).end(),
    "Redirected",
    /for it alone/,
  ],
  [
    "has no end",
    (_, response) => endless(response, "x".repeat(1 << 20)),
    "TooLong",
    /GET \/api: an answer without end/,
  ],
  ["breaks off", (_, r) => r.write("{", () => setImmediate(() => r.destroy())), "BrokenOff", /GET \/api/],
  ["breaks off before it begins", ({ socket }) => socket.destroy(), "Unreachable", /GET \/api: 127.0.0.1/],
];
for (const [what, answer, reason, message] of cases)
  test(`a server that ${what}: the error says so, and names the request`, async () => {
    server.answer = answer;
    await assert.rejects(get(), isError(reason, message));
  });

test("a server that says nothing is given up, before its answer and in the middle of it", async () => {
  server.answer = () => undefined;
  await assert.rejects(get(50), isError("Unreachable", /no answer for 0.05 s/));
  server.answer = (_, response) => response.write("[");
  await assert.rejects(get(50), isError("BrokenOff", /silent for 0.05 s/));
});

test("a redirect takes the credentials nowhere", async () => {
  const other = await UnrulyServer.start();
  try {
    server.answer = (_, response) => response.writeHead(302, { location: `${other.url}/api` }).end();
    await assert.rejects(get(), isError("Redirected", /send/, 302));
    assert.deepEqual(other.asked, []);
  } finally {
    await other.close();
  }
});

test("a server that is overloaded is asked again when it says, and not before or for ever", async () => {
  let refusals = 2;
  server.answer = (_, response) =>
    refusals-- > 0
      ? refuse(response, 429, "TooManyRequests", { "retry-after": "1" })
      : send(response, 200, { fine: 1 });
  assert.deepEqual(await server.client().request("POST", "/api", { body: {} }), { fine: 1 });
  assert.equal(server.asked.length, 3);
  server.asked.length = 0;
  server.answer = (_, response) => refuse(response, 429, "TooManyRequests", { "retry-after": "3600" });
  await assert.rejects(get(), (error) => error instanceof KubeError && error.retryAfter === 3600);
  server.answer = (_, response) => refuse(response, 429, "TooManyRequests", { "retry-after": "Wed, 21 Oct 2026" });
  await assert.rejects(get(), isError("TooManyRequests", /TooManyRequests/, 429));
  assert.equal(server.asked.length, 2);
});

for (const [what, method, options, answers] of [
  ["GET", "GET", {}, true],
  ["a review, which changes nothing", "POST", { body: {}, isRead: true }, true],
  ["what may have been done already", "POST", { body: {} }, false],
] as const)
  test(`a kept connection that has ended: ${what} is ${answers ? "" : "not "}sent again`, async () => {
    const client = server.client();
    const used = new Set<unknown>();
    server.answer = ({ socket }, response) => {
      if (used.has(socket)) socket.destroy();
      else send(response, 200, {});
      used.add(socket);
    };
    await client.request("GET", "/api");
    const second = client.request(method, "/api", options);
    if (answers) assert.deepEqual(await second, {});
    else await assert.rejects(second, isError("Unreachable", /POST/));
  });

test("a token that is replaced on disk is used from the next request on, also as the kubelet replaces it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "kloak-token-"));
  try {
    const place = (version: string, token: string): void => {
      writeFileSync(join(folder, version), token);
      symlinkSync(version, join(folder, "new"));
      renameSync(join(folder, "new"), join(folder, "token"));
    };
    writeFileSync(join(folder, "ca.crt"), server.ca);
    place("1", "first\n");
    const { port } = new URL(server.url);
    const environment = { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: port };
    const client = server.client(inClusterConnection(environment, folder));
    server.answer = (_, response) => send(response, 200, {});
    await client.request("GET", "/api");
    place("2", "other\n");
    await client.request("GET", "/api");
    assert.deepEqual(
      server.asked.map(({ authorization }) => authorization),
      ["Bearer first", "Bearer other"],
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a token that cannot be read is named", () => {
  assert.throws(() => new FileText("/nonexistent/token").read(), /\/nonexistent\/token cannot be read/);
});

test("an API below a path", async () => {
  server.answer = ({ path }, response) => send(response, 200, { path });
  const client = server.client({ server: new URL(`${server.url}/k8s/clusters/c-1/`) });
  assert.deepEqual(await client.request("GET", "/api/v1/pods"), { path: "/k8s/clusters/c-1/api/v1/pods" });
});

test("a server's certificate is verified, by the name that is wanted", async () => {
  const fetch = (more: object) => server.client(more).request("GET", "/api");
  server.answer = (_, response) => send(response, 200, {});
  await fetch({ verification: { servername: "api.test" } });
  await assert.rejects(fetch({ verification: { servername: "other.test" } }), isError("Unreachable", /other\.test/));
  await assert.rejects(fetch({ ca: undefined }), isError("Unreachable", /certificate/));
  await fetch({ ca: undefined, verification: { rejectUnauthorized: false } });
});

test("the lines of a watch, however they are cut; what is left of a cut line is not heard", async () => {
  const value = fc.record({ type: fc.string({ unit: "grapheme" }), object: fc.jsonValue() });
  const cuts = fc.array(fc.nat(), { maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(fc.array(value, { maxLength: 8 }), cuts, fc.nat(), async (lines, cuts, left) => {
      const text = Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
      const ends = [...cuts.map((cut) => cut % (text.length + 1)), text.length].toSorted((a, b) => a - b);
      server.answer = (_, response) => {
        const pieces = ends
          .map((end, index) => text.subarray(ends[index - 1] ?? 0, end))
          .filter(({ length }) => length > 0);
        const next = (): void => {
          const piece = pieces.shift();
          if (piece === undefined) response.end('{"type":"cut","object":{"left":1}}'.slice(0, left % 34));
          else response.write(piece, next);
        };
        next();
      };
      const heard = await linesOf("/watch");
      assert.deepEqual(heard, JSON.parse(JSON.stringify(lines)));
    }),
    { numRuns: 60 },
  );
});

test("a line without end is given up", async () => {
  server.answer = (_, response) => endless(response, "x".repeat(1 << 20));
  await assert.rejects(
    async () => {
      await linesOf("/watch");
    },
    isError("TooLong", /a line without end/),
  );
});

test("an object is deleted only as it was seen", async () => {
  server.answer = (_, response) => send(response, 200, {});
  const metadata = { namespace: "n", name: "s", uid: "u", resourceVersion: "7" };
  await server.client().delete(resources.secrets, { metadata });
  const [{ path, body } = { path: "", body: {} }] = server.asked;
  assert.equal(path, "/api/v1/namespaces/n/secrets/s");
  assert.deepEqual((body as { preconditions: unknown }).preconditions, { uid: "u", resourceVersion: "7" });
});
