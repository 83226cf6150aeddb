/*
 * The promise: no SDK of ours is needed, and theirs do not mind. Each official SDK holds a placeholder that keeps the
 * leading characters of its service's keys, and asks a server that answers as the service does. Needs root.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { npmPackages, pythonPackages } from "../support/packages.ts";
import { count, header } from "../support/requests.ts";
import { host, makeSecret, otherHost, root, World } from "../support/world.ts";

const folder = join(root, "test/support/clients/sdks");
const languages = {
  node: [process.execPath, join(npmPackages("sdks-node", folder), "node.mjs")],
  python: [
    join(pythonPackages("sdks-python", join(folder, "requirements.txt")), "bin/python"),
    join(folder, "python.py"),
  ],
};

const chat = { role: "assistant", content: "ok", refusal: null };
const answers = {
  "/v1/chat/completions": {
    id: "chatcmpl-1",
    object: "chat.completion",
    created: 1,
    model: "gpt-test",
    choices: [{ index: 0, message: chat, finish_reason: "stop", logprobs: null }],
  },
  "/v1/messages": {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "claude-test",
    content: [{ type: "text", text: "ok" }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: { input_tokens: 1, output_tokens: 1 },
  },
  "/v1/balance": {
    object: "balance",
    available: [{ amount: 1, currency: "eur", source_types: {} }],
    livemode: false,
    pending: [],
  },
  "/user": { login: "octocat", id: 1, type: "User" },
};

/** An answer in 1,000 pieces, 150 KB of events. */
const words = Array.from({ length: 1000 }, (_, i) => `${i} `);
const pieces = words.map((content) => ({
  id: "chatcmpl-1",
  object: "chat.completion.chunk",
  created: 1,
  model: "gpt-test",
  choices: [{ index: 0, delta: { content }, finish_reason: null }],
}));

interface Service {
  readonly sdk: string;
  /** Default `service`. */
  readonly listener?: string;
  readonly prefix: string;
  readonly header: string;
  readonly scheme: string;
  readonly understood: string;
}

const services: readonly Service[] = [
  { sdk: "openai", prefix: "sk-proj-", header: "authorization", scheme: "Bearer ", understood: "ok" },
  {
    ...{ sdk: "openai, streamed", listener: "streaming service", prefix: "sk-proj-" },
    ...{ header: "authorization", scheme: "Bearer ", understood: words.join("") },
  },
  { sdk: "anthropic", prefix: "sk-ant-api03-", header: "authorization", scheme: "Bearer ", understood: "ok" },
  { sdk: "stripe", prefix: "sk_test_", header: "authorization", scheme: "Bearer ", understood: "eur" },
  { sdk: "github", prefix: "ghp_", header: "authorization", scheme: "token ", understood: "octocat" },
];

const world = await World.create(({ good }) => [
  { name: "service", certificate: good, answers },
  { name: "streaming service", certificate: good, events: { "/v1/chat/completions": pieces } },
]);
after(() => world.close());
const requests = 100;

async function ask(
  language: keyof typeof languages,
  { sdk, prefix, listener = "service" }: Service,
  hosts: string,
  times: number,
) {
  const value = prefix + makeSecret(48);
  const ca = world.authority.caFile;
  const outcome = await world.kloak({
    secrets: { KEY: { value, hosts, prefix } },
    command: [...languages[language], sdk, world.url(listener), String(times)],
    env: { NODE_EXTRA_CA_CERTS: ca, SSL_CERT_FILE: ca, REQUESTS_CA_BUNDLE: ca },
  });
  const { requests: served, faults } = await world.server.take();
  assert.deepEqual({ faults, status: outcome.status }, { faults: [], status: 0 }, outcome.stderr);
  return { value, outcome, served };
}

for (const language of ["node", "python"] as const) {
  for (const service of services) {
    test(`${service.sdk} for ${language}: ${requests} answers, each asked for with the key`, async () => {
      const { value, outcome, served } = await ask(language, service, host, requests);
      assert.equal(outcome.stdout, `${service.understood}\n`.repeat(requests));
      const keys = count(served.map((request) => header(request, service.header)));
      assert.deepEqual(keys, { [service.scheme + value]: requests });
      const records = count(outcome.audit.map((record) => `${record.outcome} ${record.slot}`));
      assert.deepEqual(records, { [`substituted header:${service.header}`]: requests });
    });

    test(`${service.sdk} for ${language}: a host that is not allowed gets the placeholder, of a key's shape`, async () => {
      const { value, outcome, served } = await ask(language, service, otherHost, 1);
      const [key = ""] = served.map((request) => header(request, service.header));
      assert.ok(key.startsWith(`${service.scheme}${service.prefix}kloak:`), "what arrived is a placeholder");
      assert.equal(key.length, service.scheme.length + value.length);
      assert.deepEqual(
        outcome.audit.map((record) => `${record.outcome} ${record.reason}`),
        ["refused host-not-allowed"],
      );
    });
  }
}
