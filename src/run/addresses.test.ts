import assert from "node:assert/strict";
import { BlockList } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import { addressesFor, slotCount } from "./addresses.ts";

const slots = fc.integer({ min: 0, max: slotCount - 1 });

test("two runs never share a subnet", () => {
  const seen = new Set<string>();
  for (let slot = 0; slot < slotCount; slot += 1) seen.add(addressesFor(slot, [])?.ipv4.host ?? "");
  assert.equal(seen.size, slotCount);
});

test("no address of a run is one that the host routes elsewhere", () => {
  const octet = fc.integer({ min: 0, max: 255 });
  const route = fc
    .tuple(fc.constantFrom(10, 172, 192, 100), octet, octet, octet, fc.integer({ min: 8, max: 32 }))
    .map(([a, b, c, d, bits]) => `${a}.${b}.${c}.${d}/${bits}`);
  fc.assert(
    fc.property(slots, fc.array(route, { maxLength: 8 }), (slot, routes) => {
      const addresses = addressesFor(slot, routes);
      if (addresses === undefined) return;
      const blocks = new BlockList();
      for (const entry of routes) {
        const [address = "", bits] = entry.split("/");
        blocks.addSubnet(address, Number(bits), "ipv4");
      }
      assert.equal(blocks.check(addresses.ipv4.host, "ipv4"), false);
      assert.equal(blocks.check(addresses.ipv4.inside, "ipv4"), false);
    }),
  );
});

const cases: readonly { name: string; routes: readonly string[]; host: string | undefined }[] = [
  { name: "nothing in the way", routes: ["default", "192.0.2.0/24"], host: "10.171.0.5" },
  { name: "a VPN that takes all of 10/8", routes: ["10.0.0.0/8"], host: "172.30.0.5" },
  { name: "a single host in the subnet", routes: ["10.171.0.6"], host: "172.30.0.5" },
  {
    name: "everything taken",
    routes: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"],
    host: undefined,
  },
];
for (const { name, routes, host } of cases) {
  test(`subnet of a run: ${name}`, () => assert.equal(addressesFor(1, routes)?.ipv4.host, host));
}
