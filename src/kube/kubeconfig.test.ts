import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { stringify } from "yaml";
import { KloakError } from "../errors.ts";
import { kubeconfigFiles, userConnection } from "./kubeconfig.ts";
import { send, UnrulyServer } from "./testing.ts";

const folder = mkdtempSync(join(tmpdir(), "kloak-kubeconfig-"));
after(() => rmSync(folder, { recursive: true }));
let files = 0;

function write(name: string, text: string): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

const base64 = (text: string): string => Buffer.from(text).toString("base64");
const server = { server: "https://api.test:6443" };

/** A kubeconfig of one context, `c`, that may be bent. */
function config(user: object, more: { cluster?: object; context?: object; whole?: object } = {}): string {
  const whole = {
    apiVersion: "v1",
    kind: "Config",
    "current-context": "c",
    clusters: [{ name: "k", cluster: { ...server, ...more.cluster } }],
    users: [{ name: "u", user }],
    contexts: [{ name: "c", context: { cluster: "k", user: "u", ...more.context } }],
    ...more.whole,
  };
  return write(`config-${++files}`, stringify(whole));
}

const authorizationOf = async (file: string): Promise<string | undefined> =>
  (await userConnection({ file })).connection.authorization();

test("a token, in place or in a file that may change", async () => {
  assert.equal(await authorizationOf(config({ token: "abc" })), "Bearer abc");
  write("token", "one\n");
  const { connection } = await userConnection({ file: config({ tokenFile: "token" }) });
  assert.equal(await connection.authorization(), "Bearer one");
  write("token", "second\n");
  assert.equal(await connection.authorization(), "Bearer second");
});

test("certificates, in place or in files beside the kubeconfig", async () => {
  write("ca.pem", "CA");
  write("user.pem", "CERT");
  const file = config(
    { "client-certificate": "user.pem", "client-key-data": base64("KEY") },
    { cluster: { "certificate-authority": "ca.pem" } },
  );
  const { connection, about } = await userConnection({ file });
  assert.deepEqual([connection.ca, connection.certificate], ["CA", { cert: "CERT", key: "KEY" }]);
  assert.equal(about, `context c of ${file}`);
  const inPlace = config(
    {},
    { cluster: { "certificate-authority": "ca.pem", "certificate-authority-data": base64("HERE") } },
  );
  assert.equal((await userConnection({ file: inPlace })).connection.ca, "HERE");
});

test("how the server is verified, who is spoken for, and which namespace is meant", async () => {
  const file = config(
    { token: "t", as: "alice", "as-groups": ["devs"] },
    {
      cluster: { "tls-server-name": "other.test", "insecure-skip-tls-verify": true },
      context: { namespace: "payments" },
    },
  );
  const { connection, namespace } = await userConnection({ file });
  assert.deepEqual(connection.verification, { servername: "other.test", rejectUnauthorized: false });
  assert.deepEqual(connection.headers, { "impersonate-user": "alice", "impersonate-group": "devs" });
  assert.equal(namespace, "payments");
  assert.equal((await userConnection({ file: config({}) })).namespace, "default");
});

test("of several files the first that has a name decides, and paths are relative to each", async () => {
  write("second/token", "of the second");
  const first = write(
    "first/config",
    stringify({ contexts: [{ name: "a", context: { cluster: "k", user: "u" } }], "current-context": "a" }),
  );
  const second = write(
    "second/config",
    stringify({
      "current-context": "b",
      clusters: [{ name: "k", cluster: server }],
      users: [{ name: "u", user: { tokenFile: "token" } }],
      contexts: [
        { name: "a", context: { cluster: "nowhere" } },
        { name: "b", context: { cluster: "k" } },
      ],
    }),
  );
  const environment = { KUBECONFIG: `${first}:${second}:${join(folder, "absent")}`, HOME: folder };
  const chosen = await userConnection({ environment });
  assert.equal(chosen.about, `context a of ${first}`);
  assert.equal(await chosen.connection.authorization(), "Bearer of the second");
  const other = await userConnection({ environment, context: "b" });
  assert.equal(await other.connection.authorization(), undefined);
  assert.deepEqual(kubeconfigFiles({ environment: { HOME: join(folder, "nobody") } }), []);
  write("home/.kube/config", "{}");
  assert.deepEqual(kubeconfigFiles({ environment: { HOME: join(folder, "home") } }), [
    join(folder, "home/.kube/config"),
  ]);
});

function plugin(name: string, script: string): string {
  const path = write(name, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return name;
}

const v1 = "client.authentication.k8s.io/v1";
const credential = (status: object): string => JSON.stringify({ apiVersion: v1, kind: "ExecCredential", status });

test("a credential plugin: its arguments, its environment, what it is told; asked again when its token ends", async () => {
  const end = new Date(Date.now() + 5000).toISOString(); // sooner than tokens are renewed
  plugin(
    "bin/login",
    `count=$(($(cat "${folder}/count" 2>/dev/null || echo 0) + 1)); echo $count >"${folder}/count"
printf '{"kind":"ExecCredential","status":{"token":"%s","expirationTimestamp":"${end}"}}' "$1-$LOGIN-$count-$(echo "$KUBERNETES_EXEC_INFO" | grep -c '"server":"https://api.test:6443"')"`,
  );
  const exec = {
    apiVersion: v1,
    command: "bin/login",
    args: ["arg"],
    env: [{ name: "LOGIN", value: "env" }],
    provideClusterInfo: true,
  };
  const { connection } = await userConnection({ file: config({ exec }) });
  assert.equal(await connection.authorization(), "Bearer arg-env-2-1");
  assert.equal(await connection.authorization(), "Bearer arg-env-3-1");
});

test("a credential plugin that gives a certificate, and is asked once", async () => {
  const answer = credential({ clientCertificateData: "CERT", clientKeyData: "KEY" });
  plugin("once", `[ ! -e "${folder}/asked" ] || exit 9; touch "${folder}/asked"; echo '${answer}'`);
  const file = config({ exec: { apiVersion: `${v1}beta1`, command: "./once" } });
  const { connection } = await userConnection({ file });
  assert.deepEqual(connection.certificate, { cert: "CERT", key: "KEY" });
  assert.equal(await connection.authorization(), undefined);
});

const wrong: readonly [string, () => string, RegExp][] = [
  [
    "that is not there",
    () => join(folder, "nowhere"),
    /nowhere cannot be read: ENOENT.*name another with --kubeconfig/,
  ],
  ["that is no YAML", () => write("bad", "a: ]"), /bad cannot be read/],
  ["that is something else", () => write("list", "contexts: 7"), /list is no kubeconfig: contexts/],
  [
    "without a current context",
    () => config({}, { whole: { "current-context": "" } }),
    /no current context; name one with --context/,
  ],
  [
    "whose context is not there",
    () => config({}, { whole: { "current-context": "x" } }),
    /no context x, but c; name one/,
  ],
  [
    "whose cluster is not there",
    () => config({}, { context: { cluster: "x" } }),
    /no cluster x, but k; correct context c/,
  ],
  ["whose user is not there", () => config({}, { context: { user: "x" } }), /no user x, but u; correct context c/],
  [
    "without TLS",
    () => config({}, { cluster: { server: "http://api.test" } }),
    /http:\/\/api.test is no https address/,
  ],
  ["with a server that is none", () => config({}, { cluster: { server: "api" } }), /api is no https address/],
  ["with a proxy", () => config({}, { cluster: { "proxy-url": "http://p" } }), /proxy-url is not supported; use/],
  [
    "with a provider of before",
    () => config({ "auth-provider": { name: "gcp" } }),
    /auth-provider is not supported; use its exec/,
  ],
  ["with a password", () => config({ username: "me", password: "secret" }), /no passwords any more/],
  ["with a token's file that is gone", () => config({ tokenFile: "gone" }), /gone cannot be read/],
  ["with a field of the wrong kind", () => config({ token: 7 }), /has a user u that is wrong: token/],
  [
    "with a plugin of another version",
    () => config({ exec: { apiVersion: "v9", command: "x" } }),
    /user u that is wrong: exec.apiVersion/,
  ],
  [
    "with a plugin that is not installed",
    () => config({ exec: { apiVersion: v1, command: "kloak-no-such", installHint: "Get it at our place." } }),
    /user u: credential plugin kloak-no-such is not found: install it\nGet it at our place/,
  ],
  [
    "with a plugin that fails",
    () => config({ exec: { apiVersion: v1, command: `./${plugin("fails", "exit 3")}` } }),
    /fails has failed \(3\)/,
  ],
  [
    "with a plugin that says nonsense",
    () => config({ exec: { apiVersion: v1, command: `./${plugin("nonsense", "echo my-token")}` } }),
    /nonsense prints no ExecCredential/,
  ],
];
for (const [what, make, message] of wrong)
  test(`a kubeconfig ${what}: the error names it and the next step`, async () => {
    await assert.rejects(userConnection({ file: make() }), (error) => {
      assert.ok(error instanceof KloakError, String(error));
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /secret|my-token/);
      return true;
    });
  });

test("a context is named where there is no kubeconfig", async () => {
  const environment = { HOME: join(folder, "nobody") };
  await assert.rejects(
    userConnection({ environment, context: "c" }),
    /no kubeconfig is there to have contexts; name one/,
  );
  await assert.rejects(userConnection({ environment }), /KUBECONFIG/);
});

test("and a request goes where it says, as whom it says", async () => {
  const api = await UnrulyServer.start();
  try {
    api.answer = ({ authorization }, response) => send(response, 200, { authorization });
    const data = { server: api.url, "certificate-authority-data": base64(api.ca), "tls-server-name": "api.test" };
    const { connection } = await userConnection({ file: config({ token: "abc" }, { cluster: data }) });
    assert.deepEqual(await api.client(connection).request("GET", "/api"), { authorization: "Bearer abc" });
  } finally {
    await api.close();
  }
});
