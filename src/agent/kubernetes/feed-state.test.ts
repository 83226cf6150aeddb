import assert from "node:assert/strict";
import { test } from "node:test";
import { FeedState } from "./feed-state.ts";
import { podOf } from "./pod-processes.ts";

const secret = (number: number, placeholder: string, value = "c2VjcmV0") =>
  ({ type: "secret", number, name: "n/s/k", value, placeholder, policy: { hosts: "a.test" }, roots: null }) as const;
const pod = (...secrets: number[]) => ({ type: "pod", uid: "u", namespace: "n", name: "p", secrets }) as const;

test("a value of equal shape keeps a secret's id, another placeholder has another", () => {
  const state = new FeedState();
  const ids = [secret(1, "kloak:A"), secret(2, "kloak:A", "b3RoZXI="), secret(3, "kloak:B")].map((line) => {
    state.take(line);
    state.take(pod(line.number));
    return state.pods()[0]?.secrets[0]?.id;
  });
  assert.equal(ids[0], ids[1]);
  assert.notEqual(ids[0], ids[2]);
  assert.ok(!ids.some((id) => id?.includes("kloak:")), "an id is written down, and must not have the placeholder");
});

test("a pod with a secret that was not told is refused", () => {
  assert.throws(() => new FeedState().take(pod(7)), TypeError);
});

const uid = "0a1b2c3d-1111-2222-3333-444455556666";
const paths: readonly [string, string | undefined][] = [
  [`0::/kubepods/besteffort/pod${uid}/9f0c`, uid],
  [
    `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${uid.replaceAll("-", "_")}.slice/cri-containerd-1.scope`,
    uid,
  ],
  [`12:pids:/kloak/node-a/kubepods/pod${uid}/abc\n11:cpu:/`, uid],
  [`0::/../pod${uid}`, uid],
  ["0::/user.slice/user-0.slice/session-1.scope", undefined],
  ["0::/kubepods/podsomething/1", undefined],
];
for (const [path, wanted] of paths) test(`cgroup ${path.slice(0, 60)}`, () => assert.equal(podOf(path), wanted));
