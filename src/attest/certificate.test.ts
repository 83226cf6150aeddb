import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createTcpServer } from "node:net";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { createServer } from "node:tls";
import type { TlsOptions } from "node:tls";
import { createAuthority } from "../lab/certificates.ts";
import type { Certificate } from "../lab/certificates.ts";
import { parseHosts } from "../policy/hosts.ts";
import { Attestor } from "./attestor.ts";
import { attestCertificate } from "./certificate.ts";
import { systemClock } from "./clock.ts";
import { systemResolver } from "./resolver.ts";
import { Roots } from "./roots.ts";
import { MemorySink } from "./verdict.ts";

const directory = mkdtempSync(join(tmpdir(), "kloak-attest-"));
const servers = new Set<Server>();
after(() => {
  for (const server of servers) server.close();
  rmSync(directory, { recursive: true, force: true });
});

const trusted = createAuthority(directory, "trusted");
const stranger = createAuthority(directory, "stranger");
const roots = new Roots([trusted.caFile]);
const good = trusted.issue("good", { dns: ["api.example.com"], ip: ["127.0.0.2"] });

function options({ keyFile, certificateFile }: Certificate): TlsOptions {
  return { key: readFileSync(keyFile), cert: readFileSync(certificateFile) };
}

async function listen(server: Server, address: string): Promise<number> {
  servers.add(server);
  server.listen(0, address);
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

function serve(tls: TlsOptions, address = "127.0.0.2"): Promise<number> {
  const server = createServer(tls, (socket) => socket.on("error", () => undefined));
  server.on("tlsClientError", () => undefined);
  return listen(server, address);
}

async function attest(port: number, name: string | null = "api.example.com", address = "127.0.0.2"): Promise<string> {
  const dial = { address, port, name, context: roots.context([]), timeoutMs: 20_000 };
  const outcome = await attestCertificate(dial, systemClock, new AbortController().signal);
  return "failure" in outcome ? outcome.failure.reason : "granted";
}

/** A certificate that signs itself. */
function selfSigned(names: string): Certificate {
  const keyFile = join(directory, "self.key");
  const certificateFile = join(directory, "self.pem");
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", keyFile];
  const rest = ["-subj", "/CN=api.example.com", "-addext", `subjectAltName=${names}`, "-out", certificateFile];
  execFileSync("openssl", ["req", "-x509", ...key, ...rest], { stdio: "pipe" });
  return { keyFile, certificateFile };
}

/** A certificate under the trusted root without alternative names, or for another purpose. */
function unusual(file: string, extension: string): Certificate {
  const extensionFile = join(directory, `${file}.ext`);
  const requestFile = join(directory, `${file}.csr`);
  const keyFile = join(directory, `${file}.key`);
  const certificateFile = join(directory, `${file}.pem`);
  writeFileSync(extensionFile, `${extension}\n`);
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", keyFile];
  execFileSync("openssl", ["req", "-new", ...key, "-subj", "/CN=api.example.com", "-out", requestFile], {
    stdio: "pipe",
  });
  const authority = ["-CA", trusted.caFile, "-CAkey", join(directory, "trusted.key"), "-CAcreateserial"];
  const request = ["-req", "-in", requestFile, "-out", certificateFile, "-days", "2", "-extfile", extensionFile];
  execFileSync("openssl", ["x509", ...request, ...authority], { stdio: "pipe" });
  return { keyFile, certificateFile };
}

const cases: readonly (readonly [what: string, certificate: () => Certificate, expected: string])[] = [
  ["the right name under a trusted root", () => good, "granted"],
  ["an untrusted root", () => stranger.issue("untrusted", { dns: ["api.example.com"] }), "untrusted"],
  ["expired", () => trusted.issue("old", { dns: ["api.example.com"], days: -1 }), "expired"],
  ["another name", () => trusted.issue("wrong", { dns: ["www.example.com"] }), "wrong-name"],
  ["self-signed", () => selfSigned("DNS:api.example.com"), "self-signed"],
  ["a wildcard for the name's own domain", () => trusted.issue("wild", { dns: ["*.example.com"] }), "granted"],
  ["a wildcard a level too high", () => trusted.issue("high", { dns: ["*.com"] }), "wrong-name"],
  ["a wildcard inside a label", () => trusted.issue("part", { dns: ["a*.example.com"] }), "wrong-name"],
  ["the name in the common name only", () => unusual("common", "keyUsage=digitalSignature"), "wrong-name"],
  [
    "a certificate for clients",
    () => unusual("client", "subjectAltName=DNS:api.example.com\nextendedKeyUsage=clientAuth"),
    "bad-certificate",
  ],
  ["the name as an address", () => trusted.issue("address", { ip: ["127.0.0.2"] }), "wrong-name"],
];

for (const [what, certificate, expected] of cases) {
  test(`a server with ${what}: ${expected}`, async () => {
    assert.equal(await attest(await serve(options(certificate()))), expected);
  });
}

test("a host that is an address must be in the certificate as an address, and gets no SNI", async () => {
  const seen: (string | undefined)[] = [];
  const port = await serve({
    ...options(good),
    SNICallback: (name, done) => {
      seen.push(name);
      done(null);
    },
  });
  assert.equal(await attest(port, null), "granted");
  assert.equal(seen.length, 0);
  const names = trusted.issue("names", { dns: ["127.0.0.2", "api.example.com"] });
  assert.equal(await attest(await serve(options(names)), null), "wrong-name");
});

test("SNI is the name that is asked for, and decides about the certificate", async () => {
  const { createSecureContext } = await import("node:tls");
  const port = await serve({
    ...options(trusted.issue("default", { dns: ["default.example.com"] })),
    SNICallback: (name, done) =>
      done(null, name === "api.example.com" ? createSecureContext(options(good)) : undefined),
  });
  assert.equal(await attest(port), "granted");
  assert.equal(await attest(port, "www.example.com"), "wrong-name");
});

test("a server that asks for a client certificate is attested all the same", async () => {
  assert.equal(await attest(await serve({ ...options(good), requestCert: true, rejectUnauthorized: true })), "granted");
});

test("TLS 1.2 is enough, TLS 1.1 is not", async () => {
  assert.equal(await attest(await serve({ ...options(good), maxVersion: "TLSv1.2" })), "granted");
  const old = { ...options(good), minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT:@SECLEVEL=0" } as const;
  assert.equal(await attest(await serve(old)), "no-tls");
});

test("a port where nobody listens", async () => {
  const server = createTcpServer();
  const port = await listen(server, "127.0.0.2");
  server.close();
  await once(server, "close");
  assert.equal(await attest(port), "unreachable");
});

test("a server that speaks no TLS", async () => {
  const port = await listen(
    createTcpServer((socket) => socket.on("error", () => undefined).end("HTTP/1.1 400 Bad Request\r\n\r\n")),
    "127.0.0.2",
  );
  assert.equal(await attest(port), "no-tls");
});

test("a server that hangs is given up in time, and its connection closed", async () => {
  const server = createTcpServer((socket) => socket.on("error", () => undefined).resume());
  const port = await listen(server, "127.0.0.2");
  const connected = once(server, "connection");
  const dial = { address: "127.0.0.2", port, name: "api.example.com", context: roots.context([]), timeoutMs: 100 };
  const outcome = await attestCertificate(dial, systemClock, new AbortController().signal);
  assert.equal("failure" in outcome && outcome.failure.reason, "timeout");
  const [socket] = await connected;
  if (!socket.destroyed) await once(socket, "close");
});

test("an attempt that is given up ends", async () => {
  const port = await listen(
    createTcpServer((socket) => socket.on("error", () => undefined).resume()),
    "127.0.0.2",
  );
  const stop = new AbortController();
  const dial = { address: "127.0.0.2", port, name: "api.example.com", context: roots.context([]), timeoutMs: 60_000 };
  const outcome = attestCertificate(dial, systemClock, stop.signal);
  stop.abort();
  assert.ok("failure" in (await outcome));
});

test("roots: the first file there is, followed when it changes, and extra ones for who brings them", async () => {
  const file = join(directory, "roots.pem");
  writeFileSync(file, readFileSync(stranger.caFile));
  const own = new Roots([join(directory, "absent.pem"), file]);
  const port = await serve(options(good));
  const ask = async (extra: readonly string[] = []): Promise<boolean> => {
    const dial = {
      address: "127.0.0.2",
      port,
      name: "api.example.com",
      context: own.context(extra),
      timeoutMs: 20_000,
    };
    return !("failure" in (await attestCertificate(dial, systemClock, new AbortController().signal)));
  };
  assert.equal(await ask(), false);
  assert.equal(await ask([readFileSync(trusted.caFile, "utf8")]), true);
  assert.equal(await ask(), false);
  appendFileSync(file, readFileSync(trusted.caFile));
  assert.equal(await ask(), true);
});

test("a host's own roots and resolver: localhost is attested ahead of time, by its certificate", {
  timeout: 60_000,
}, async () => {
  const certificate = trusted.issue("localhost", { dns: ["localhost"] });
  const port = await serve(options(certificate), "127.0.0.1");
  const sink = new MemorySink();
  const told = Promise.withResolvers<void>();
  const attestor = new Attestor({
    sink,
    resolver: systemResolver,
    onAttested: ({ key, granted }) => {
      if (key.address === "127.0.0.1" && granted) told.resolve();
    },
  });
  const pem = readFileSync(trusted.caFile, "utf8");
  attestor.setRules([{ hosts: parseHosts(`localhost:${port}`), ports: [], attest: "certificate", roots: [pem] }]);
  const stop = new AbortController();
  const run = attestor.run(stop.signal);
  try {
    await told.promise;
    const verdict = sink.get({ address: "127.0.0.1", port, name: "localhost", mode: "certificate" });
    assert.equal(verdict?.granted, true);
    assert.ok(verdict.expiresNs > process.hrtime.bigint());
  } finally {
    stop.abort();
    await run;
  }
});
