import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import { type Codec, u32 } from "../dataplane/codec.ts";
import {
  hostKeyCodec,
  hostRuleCodec,
  networkKeyCodec,
  secretChunkCodec,
  secretChunkKeyCodec,
  secretCodec,
  tokenKeyCodec,
} from "../dataplane/types.gen.ts";
import { huffmanBits } from "../placeholder/huffman.ts";
import { makePlaceholder } from "../placeholder/placeholder.ts";
import { SecretValue } from "../placeholder/secret-value.ts";
import { addressBytes, addressText } from "./address.ts";
import { type BoundSecret, compileSecret, compileSecrets } from "./compile.ts";
import { type PolicyInput, parsePolicy } from "./policy.ts";
import type { HostRule, KernelRows, Row } from "./rows.ts";

const names: string[] = [];
/** Any injective function will do for a hash. */
const hash = (name: string) => BigInt(names.includes(name) ? names.indexOf(name) : names.push(name) - 1) + 1000n;
const nameOf = (hashed: bigint) => names[Number(hashed - 1000n)];

function secret(number: number, policy: PolicyInput, workloads: readonly number[] = [7]): BoundSecret {
  const value = new SecretValue("sk-live-xyz123abc456");
  const parsed = parsePolicy(policy);
  return { number, value, placeholder: makePlaceholder(value, { prefix: parsed.prefix }), policy: parsed, workloads };
}

function ruleText({ ports, portCount, attest }: HostRule): string {
  assert.equal(ports.length, portCount);
  return `${portCount === 0 ? "any" : ports.join(",")} ${attest}`;
}

function hostLines(rows: KernelRows): string[] {
  return rows.hosts.map(({ key, value }) => `${key.secret} ${key.kind} ${nameOf(key.name)} ${ruleText(value)}`).sort();
}

function networkLines(rows: KernelRows): string[] {
  return rows.networks.map(({ key, value }) => `${addressText(key.address)}/${key.prefix} ${ruleText(value)}`).sort();
}

test("a secret's own row", () => {
  const bound = secret(5, {
    hosts: "api.example.com",
    in: "header:authorization,header:X-Api-Key,query",
    proof: "record",
    prefix: "sk-",
  });
  const [row] = compileSecret(bound, hash).secrets;
  assert.equal(row?.key, 5);
  assert.deepEqual(row?.value, {
    length: 20,
    markerOffset: 3,
    huffmanBits: huffmanBits(Buffer.from(bound.placeholder, "latin1")),
    huffmanStart: huffmanBits(Buffer.from("sk-", "latin1")),
    proof: 1,
    slots: 2 | 4,
    headerCount: 2,
    headers: [
      { length: 13, text: "authorization" },
      { length: 9, text: "x-api-key" },
    ],
  });
});

test("a token for every workload and one for all", () => {
  const bound = secret(5, { hosts: "a.com" }, [7, 9]);
  const rows = compileSecret(bound, hash).tokens;
  assert.deepEqual(
    rows.map(({ key, value }) => [key.workload, value]),
    [
      [0, 5],
      [7, 5],
      [9, 5],
    ],
  );
  for (const { key } of rows) assert.equal(Buffer.from(key.token).toString(), bound.placeholder.slice(0, 16));
});

test("chunks of all encodings carry the secret's number", () => {
  const rows = compileSecret(secret(5, { hosts: "a.com" }), hash).secretChunks;
  assert.deepEqual(
    rows.map(({ key }) => [key.secret, key.encoding, key.index]).sort(([, one = 0], [, other = 0]) => one - other),
    Array.from({ length: 14 }, (_, which) => [5, which, 0]),
  );
});

const hostCases: readonly (readonly [PolicyInput, readonly string[]])[] = [
  [{ hosts: "a.com" }, ["0 1 a.com any 0", "5 1 a.com any 0"]],
  [{ hosts: "*.a.com", ports: 443 }, ["0 2 a.com 443 0", "5 2 a.com 443 0"]],
  [{ hosts: "a.com:8443,a.com:443" }, ["0 1 a.com 443,8443 0", "5 1 a.com 443,8443 0"]],
  [{ hosts: "a.com:8443,a.com" }, ["0 1 a.com any 0", "5 1 a.com any 0"]],
  [{ hosts: "a.com:443,a.com", ports: [443, 8443], attest: "dns" }, ["0 1 a.com 443,8443 1", "5 1 a.com 443,8443 1"]],
  [{ hosts: "a.com,*.a.com:443" }, ["0 1 a.com any 0", "0 2 a.com 443 0", "5 1 a.com any 0", "5 2 a.com 443 0"]],
];

for (const [policy, lines] of hostCases) {
  test(`host rows of ${JSON.stringify(policy)}`, () => {
    assert.deepEqual(hostLines(compileSecret(secret(5, policy), hash)), lines);
  });
}

const networkCases: readonly (readonly [PolicyInput, readonly string[]])[] = [
  [{ hosts: "10.0.0.0/8", attest: "none" }, ["10.0.0.0/136 any 2"]],
  [{ hosts: "10.0.0.1:8443", ports: [443, 8443] }, ["10.0.0.1/160 8443 0"]],
  [{ hosts: "2001:db8::/32,[2001:db8::1]:443" }, ["2001:db8::/64 any 0", "2001:db8::1/160 any 0"]],
  [
    { hosts: "10.0.0.0/8:443,10.0.0.0/16:8443,10.0.0.1:1" },
    ["10.0.0.0/136 443 0", "10.0.0.0/144 443,8443 0", "10.0.0.1/160 1,443,8443 0"],
  ],
  [{ hosts: "10.0.0.1:2,10.0.0.1:1" }, ["10.0.0.1/160 1,2 0"]],
];

for (const [policy, lines] of networkCases) {
  test(`network rows of ${JSON.stringify(policy)}`, () => {
    assert.deepEqual(networkLines(compileSecret(secret(5, policy), hash)), [...lines].sort());
  });
}

test("the secret's number stands in network byte order in a network's key", () => {
  const [row] = compileSecret(secret(0x01020304, { hosts: "10.0.0.1" }), hash).networks;
  const stored = Buffer.alloc(4);
  stored.writeUInt32LE(row?.key.secret ?? 0);
  assert.equal(stored.toString("hex"), "01020304");
});

test("the longest prefix allows what any of the networks allows", () => {
  const network = fc.tuple(
    fc.integer({ min: 1, max: 24 }),
    fc.nat({ max: 7 }),
    fc.option(fc.integer({ min: 1, max: 4 })),
  );
  fc.assert(
    fc.property(fc.array(network, { minLength: 1, maxLength: 6 }), fc.nat({ max: 255 }), (networks, last) => {
      const written = networks.map(([bits, low, port]) => {
        const number = ((low << 29) >>> (32 - bits)) * 2 ** (32 - bits) || 2 ** (32 - bits);
        const text = [number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255].join(".");
        return { text: `${text}/${bits}${port === null ? "" : `:${port}`}`, bits, number, port };
      });
      const rows = compileSecret(secret(5, { hosts: written.map(({ text }) => text) }), hash).networks;
      const address = ((written[0]?.number ?? 0) | last) >>> 0;
      for (const port of [1, 2, 3, 4, 5]) {
        const allowed = written.some(
          (each) =>
            Math.floor(address / 2 ** (32 - each.bits)) === Math.floor(each.number / 2 ** (32 - each.bits)) &&
            (each.port ?? port) === port,
        );
        assert.equal(allows(rows, address, port), allowed);
      }
    }),
    { numRuns: 500 },
  );
});

/** What the trie does: the row of the longest prefix. */
function allows(rows: KernelRows["networks"], address: number, port: number): boolean {
  const bytes = addressBytes([address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255].join("."));
  const bitsOf = (each: Uint8Array) => [...each].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const text = bitsOf(bytes as Buffer);
  const matching = rows.filter(
    ({ key }) => bitsOf(key.address).slice(0, key.prefix - 32) === text.slice(0, key.prefix - 32),
  );
  const [longest] = matching.sort((a, b) => b.key.prefix - a.key.prefix);
  return longest !== undefined && (longest.value.portCount === 0 || longest.value.ports.includes(port));
}

test("secrets that share a host share its row for any secret, and keep their own", () => {
  const rows = compileSecrets(
    [secret(1, { hosts: "a.com:443" }), secret(2, { hosts: "a.com:8443,b.com", attest: "dns" })],
    hash,
  );
  assert.deepEqual(hostLines(rows), [
    "0 1 a.com 443,8443 0",
    "0 1 b.com any 1",
    "1 1 a.com 443 0",
    "2 1 a.com 8443 1",
    "2 1 b.com any 1",
  ]);
  assert.equal(rows.secrets.length, 2);
  assert.equal(rows.tokens.length, 4);
});

test("more ports of one host than a rule holds is an error, not a wider rule", () => {
  const hosts = Array.from({ length: 9 }, (_, index) => `a.com:${index + 1}`);
  assert.throws(() => compileSecret(secret(5, { hosts }), hash), /9 ports.*8/);
});

test("number 0 is no secret's", () => {
  assert.throws(() => compileSecret(secret(0, { hosts: "a.com" }), hash), RangeError);
});

test("every row fits the kernel's struct", () => {
  const bound = secret(5, { hosts: "a.com:1,a.com:2,*.b.com", in: "header:authorization", attest: "dns" });
  const rows = compileSecrets([bound, secret(6, { hosts: "10.0.0.0/8" })], hash);
  const whole = <K, V>(key: Codec<K>, value: Codec<V>, table: readonly Row<K, V>[]) => {
    assert.ok(table.length > 0);
    for (const row of table) {
      assert.deepEqual(key.decode(key.encode(row.key)), row.key);
      value.encode(row.value);
    }
  };
  whole(tokenKeyCodec, u32, rows.tokens);
  whole(u32, secretCodec, rows.secrets);
  whole(secretChunkKeyCodec, secretChunkCodec, rows.secretChunks);
  whole(hostKeyCodec, hostRuleCodec, rows.hosts);
  whole(networkKeyCodec, hostRuleCodec, rows.networks);
});
