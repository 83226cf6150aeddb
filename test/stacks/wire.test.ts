/* The promise: it works whatever the workload's interface is set to, over IPv4 and IPv6. Needs root. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { suites } from "../../src/lab/suites.ts";
import { count, header } from "../support/requests.ts";
import { clientCommand, type Stack, stacks } from "../support/stacks.ts";
import { host, makeSecret, World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());

const values: Readonly<Record<string, string>> = { USUAL: makeSecret(51), LONG: makeSecret(4096) };
const names = Object.keys(values);
const python = stacks.find(({ name }) => name === "python") as Stack; // the table has it
const device = '$(ip -o route get "$1" | sed -n "s/.* dev \\([^ ]*\\).*/\\1/p")';

const settings: readonly { name: string; setUp: string; address: "ipv4" | "ipv6" }[] = [
  { name: "IPv6", setUp: "true", address: "ipv6" },
  { name: "no checksum offload", setUp: `ethtool -K ${device} tx off >/dev/null`, address: "ipv4" },
  { name: "no checksum offload, IPv6", setUp: `ethtool -K ${device} tx off >/dev/null`, address: "ipv6" },
  { name: "no segmentation offload", setUp: `ethtool -K ${device} tso off gso off sg off >/dev/null`, address: "ipv4" },
  { name: "an MTU of 1280", setUp: `ip link set dev ${device} mtu 1280`, address: "ipv4" },
  {
    name: "an MTU of 576 and no offload",
    setUp: `ip link set dev ${device} mtu 576 && ethtool -K ${device} tx off tso off gso off sg off >/dev/null`,
    address: "ipv4",
  },
];

for (const { name, setUp, address } of settings) {
  test(`${name}: every suite`, async () => {
    const server = world.namespace[address].inside;
    const urls = suites.map((suite) => {
      const authority = address === "ipv6" ? `six.${host}` : host;
      return world.url(suite.name, authority);
    });
    const client = clientCommand(python, { ca: world.authority.caFile, requests: 2, big: 300 * 1024, names, urls });
    const script = `${setUp} || exit; shift; exec "$@"`;
    const secrets = Object.fromEntries(
      names.map((key) => [key, { value: values[key] ?? "", hosts: [host, `six.${host}`] }]),
    );
    const outcome = await world.kloak({
      secrets,
      command: ["sh", "-c", script, "sh", server, ...client],
      options: ["--user", "root"],
    });
    const { requests, faults } = await world.server.take();
    const got = requests.map((request) => {
      const value = header(request, "authorization");
      const here = Object.entries(values).find(([, secret]) => value === `Bearer ${secret}`)?.[0];
      return here ?? (value === "" ? "upload" : "inert");
    });
    const times = suites.length * 2;
    assert.deepEqual(
      { got: count(got), faults, stderr: outcome.stderr, status: outcome.status },
      { got: { LONG: times, USUAL: times, upload: times }, faults: [], stderr: "", status: 0 },
    );
    assert.deepEqual(count(outcome.audit.map((record) => `${record.outcome} ${record.destination.address}`)), {
      [`substituted ${server}`]: times * names.length,
    });
  });
}
