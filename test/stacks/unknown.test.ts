/*
 * The promise: a program whose TLS code nobody hooks, with nothing in it that says whose it is, runs, sends its
 * placeholder, and is told, with file, build id and what was seen. Needs root.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { after, test } from "node:test";
import { discover } from "../../src/hooks/index.ts";
import { count, header } from "../support/requests.ts";
import { host, makeSecret, root, World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());

const programs = [
  { library: "wolfSSL", name: "static-wolfssl", link: ["-lwolfssl", "-lm"], label: "c ap traffic" },
  {
    library: "Mbed TLS",
    name: "static-mbedtls",
    link: ["-lmbedtls", "-lmbedx509", "-lmbedcrypto"],
    label: "client finished",
  },
];

for (const { library, name, link, label } of programs) {
  test(`${library}, linked statically and stripped`, async () => {
    const program = join(world.directory, name);
    const source = join(root, "test/support/clients", `${name}.c`);
    // The linker warns of getaddrinfo in a static program, which none of them calls with a name.
    execFileSync("gcc", ["-O2", "-static", "-s", "-Wl,--build-id=sha1", "-o", program, source, ...link], {
      stdio: ["ignore", "inherit", "pipe"],
    });
    const { identity } = discover(program);
    const listener = "1.2 aes-128-gcm";
    const outcome = await world.kloak({
      secrets: { SECRET: { value: makeSecret(51), hosts: host } },
      command: [program, world.namespace.ipv4.inside, String(world.server.port(listener)), host],
    });
    const { requests } = await world.server.take();
    assert.equal(outcome.status, 0, outcome.stderr);
    assert.deepEqual(
      requests.map((request) => header(request, "authorization").slice(0, 13)),
      ["Bearer kloak:"],
    );
    assert.deepEqual(count(outcome.audit.map((record) => record.outcome)), { unprotected: 1 });
    const [{ detail } = { detail: "" }] = outcome.audit;
    for (const part of [name, identity.buildId ?? "no build id", `holds the label "${label}"`])
      assert.ok(detail?.includes(part), detail ?? "no detail");
  });
}
