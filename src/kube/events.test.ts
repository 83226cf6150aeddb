import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { EventRecorder } from "./events.ts";
import { resources } from "./resource.ts";
import { refuse, send, UnrulyServer } from "./testing.ts";

let server: UnrulyServer;
let now: number;
let warnings: string[];
before(async () => {
  server = await UnrulyServer.start();
});
after(() => server.close());
beforeEach(() => {
  server.asked.length = 0;
  server.answer = (_, response) => send(response, 200, {});
  now = Date.parse("2026-11-23T16:20:00Z");
  warnings = [];
});

const recorder = () =>
  new EventRecorder({
    client: server.client(),
    component: "test",
    now: () => now,
    warn: (text) => warnings.push(text),
  });
const secret = (name = "stripe") => ({ metadata: { namespace: "payments", name, uid: `uid-${name}` } });
const say = (events: EventRecorder, message: string, name?: string, reason = "HostsMissing") =>
  events.record(resources.secrets, secret(name), "Warning", reason, message);
const methods = () => server.asked.map(({ method }) => method);

interface Written {
  readonly metadata: { readonly name: string };
  readonly message: string;
  readonly count: number;
  readonly involvedObject: { readonly uid: string; readonly kind: string };
}
const written = () => server.asked.filter(({ method }) => method === "POST").map(({ body }) => body as Written);

test("the same thing said again is counted, and written once a minute", async () => {
  const events = recorder();
  for (let i = 0; i < 100; i++) await say(events, "no hosts");
  assert.deepEqual(methods(), ["POST"]);
  now += 60_000;
  await say(events, "no hosts");
  await say(events, "no hosts");
  assert.deepEqual(methods(), ["POST", "PATCH"]);
  const { body, path } = server.asked[1] ?? {};
  assert.match(path ?? "", new RegExp(`/namespaces/payments/events/${written()[0]?.metadata.name}$`));
  assert.deepEqual(body, [
    { op: "replace", path: "/count", value: 101 },
    { op: "replace", path: "/lastTimestamp", value: "2026-11-23T16:21:00Z" },
  ]);
});

test("an Event that has run out, or was never written, is made again with its count", async () => {
  const events = recorder();
  server.answer = (_, response) => refuse(response, 500, "InternalError");
  await say(events, "no hosts");
  assert.match(warnings.join(), /InternalError/);
  now += 3600_000;
  server.answer = ({ method }, response) =>
    method === "PATCH" ? refuse(response, 404, "NotFound") : send(response, 201, {});
  await say(events, "no hosts");
  assert.deepEqual(methods(), ["POST", "PATCH", "POST"]);
  assert.deepEqual(
    written().map(({ count }) => count),
    [1, 2],
  );
  assert.equal(written()[0]?.metadata.name, written()[1]?.metadata.name);
});

test("of one reason an object may say so much, and later more; another, or of another, is not silenced by it", async () => {
  const events = recorder();
  for (let i = 0; i < 25; i++) await say(events, `message ${i}`);
  assert.equal(server.asked.length, 10);
  assert.equal(events.suppressed, 15);
  await say(events, "its own", "other");
  await say(events, "of another reason", undefined, "HostNotAllowed");
  assert.equal(server.asked.length, 12);
  now += 60_000; // two more
  for (let i = 30; i < 35; i++) await say(events, `message ${i}`);
  assert.equal(server.asked.length, 14);
});

test("names and messages that the API takes, whatever the object is called", async () => {
  const events = recorder();
  const name = `${"a".repeat(198)}.-${"b".repeat(50)}`;
  await say(events, "x".repeat(5000), name);
  const [event] = written();
  assert.match(event?.metadata.name ?? "", /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/);
  assert.ok((event?.metadata.name.length ?? 999) <= 253);
  assert.equal(event?.message.length, 1024);
  assert.deepEqual(event.involvedObject.uid, `uid-${name}`);
});

test("a namespace that is gone is nothing to warn of", async () => {
  server.answer = (_, response) => refuse(response, 404, "NotFound");
  await say(recorder(), "no hosts");
  assert.deepEqual(warnings, []);
});
