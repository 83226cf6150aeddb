/*
 * The promise: git, which on Debian speaks TLS by GnuTLS, clones and pushes with a token that is in no file and in no
 * environment. It asks without it first, then sends `Basic`, whose base64 holds the placeholder. Needs root.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { count } from "../support/requests.ts";
import { type GitServer, startGitServer } from "../support/git-server.ts";
import { noteServed } from "../support/served-stacks.ts";
import { host, makeSecret, otherHost, World } from "../support/world.ts";

const world = await World.create();
const password = makeSecret(40);
const repositories = join(world.directory, "repositories");
const git = (...args: string[]) => execFileSync("git", args, { stdio: ["ignore", "pipe", "pipe"], encoding: "utf8" });

mkdirSync(repositories);
git("init", "--quiet", "--bare", "--initial-branch=main", join(repositories, "project.git"));
git("-C", join(repositories, "project.git"), "config", "http.receivepack", "true");
const certificate = world.authority.issue("git", { dns: [host, otherHost] });
const server: GitServer = await startGitServer(world, { root: repositories, ...certificate, user: "robot", password });
after(async () => {
  await server.close();
  await world.close();
});

/** The token is the placeholder, given by a credential helper as any CI gives it. */
const helper = `!f() { echo username=robot; echo "password=$TOKEN"; }; f`;
const common = ["credential.helper=" + helper, "user.name=Robot", "user.email=robot@kloak.test", "core.askPass=true"];

/** Nothing of this machine's own configuration. */
const environment = {
  GIT_SSL_CAINFO: world.authority.caFile,
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_CONFIG_SYSTEM: "/dev/null",
};

/** Bytes that cannot be made smaller, so that the upload has many records. */
const large = 3 << 20;

const work = (folder: string, name = host) => `
  set -eu
  git() { command git ${common.map((setting) => `-c '${setting}'`).join(" ")} "$@"; }
  git clone --quiet https://${name}:${server.port}/project.git ${folder}
  cd ${folder}
  echo ${folder} >name
  head -c ${large} /dev/urandom >large
  git add .
  git commit --quiet -m ${folder}
  git push --quiet origin HEAD:refs/heads/${folder}
  git ls-remote --quiet origin refs/heads/${folder} | wc -l`;

/** So much that TLS 1.2 alone is spoken: by the one version of GnuTLS's configuration that every program of it reads. */
const priorities = join(world.directory, "gnutls.config");
writeFileSync(priorities, "[overrides]\ndisabled-version = tls1.3\n");

for (const [version, env] of [
  ["1.3", {}],
  ["1.2", { GNUTLS_SYSTEM_PRIORITY_FILE: priorities }],
] as const) {
  test(`git: clones and pushes over TLS ${version}`, async () => {
    const folder = `work-${version}`;
    const secrets = { TOKEN: { value: password, hosts: host } };
    const outcome = await world.kloak({
      secrets,
      command: ["sh", "-c", work(folder)],
      env: { ...environment, ...env },
    });
    assert.deepEqual(
      [outcome.status, outcome.stdout.trim(), outcome.stderr.replace(/^warning: .*\n/, "")],
      [0, "1", ""],
    );
    const pushed = git("-C", join(repositories, "project.git"), "cat-file", "-s", `${folder}:large`);
    assert.equal(pushed.trim(), String(large));
    const lines = count(outcome.audit.map(({ outcome: what, encoding, tls }) => `${what} ${encoding} ${tls.version}`));
    assert.deepEqual(Object.keys(lines), [`substituted base64 ${version}`]);
    assert.ok(outcome.audit.every(({ tls }) => tls.stack === "gnutls"));
    const stack = {
      name: "git",
      command: ["git"],
      keepsAlive: true,
      version: ["git", "--version"],
      executable: "wget",
    };
    noteServed(stack, outcome.audit);
  });
}

test("git: another host's server gets the placeholder, and lets nobody in", async () => {
  const secrets = { TOKEN: { value: password, hosts: host } };
  const outcome = await world.kloak({ secrets, command: ["sh", "-c", work("elsewhere", otherHost)], env: environment });
  assert.equal(outcome.status, 128);
  assert.match(outcome.stderr, /Authentication failed/);
  assert.deepEqual(
    new Set(outcome.audit.map(({ outcome: what, reason }) => `${what} ${reason}`)),
    new Set(["refused host-not-allowed"]),
  );
});
