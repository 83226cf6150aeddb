import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, test } from "node:test";
import { discover } from "../discover.ts";
import { Workshop } from "../fixture.ts";
import { gnutlsLike, type GnutlsShape, nettleLike } from "./fixture.ts";

const workshop = new Workshop();
after(() => workshop.close());

/** Built as Debian builds it: stripped, so that the functions of a table have no names. */
function library(code: string): { readonly file: string; readonly addressOf: (name: string) => number } {
  const file = workshop.link("library.so", code, ["-shared"]);
  const symbols = execFileSync("nm", [file], { encoding: "utf8" });
  execFileSync("strip", [file]);
  return {
    file,
    addressOf: (name) => Number.parseInt(new RegExp(`^([0-9a-f]+) . ${name}$`, "m").exec(symbols)?.[1] ?? "", 16),
  };
}

test("the functions for AES-GCM are found through the table that is registered for it", () => {
  const { file, addressOf } = library(gnutlsLike());
  const { stacks, refusals, tls } = discover(file);
  assert.deepEqual({ refusals, tls, version: stacks[0]?.version }, { refusals: [], tls: "known", version: "3.8.9" });
  assert.deepEqual(
    stacks.flatMap(({ hooks }) => hooks.map(({ program, address }) => [program, address])),
    [
      ["gnutls_offer", addressOf("gnutls_aead_cipher_encryptv")],
      ["gnutls_gcm_key", addressOf("set_key")],
      ["gnutls_gcm_nonce", addressOf("set_iv")],
      ["gnutls_gcm_seal", addressOf("aead_encrypt")],
    ],
  );
});

const others: readonly (readonly [what: string, shape: GnutlsShape])[] = [
  ["registered for one of the ciphers alone", { ciphers: [10] }],
  ["registered for other ciphers", { ciphers: [4, 5] }],
  ["a table that tells its nonce", { table: Array.from({ length: 11 }, () => "set_key") }],
  ["a table without the function for a whole record", { table: Array.from({ length: 6 }, () => "set_key") }],
];

for (const [what, shape] of others) {
  test(`nothing is hooked, and it is said why: ${what}`, () => {
    const { stacks, refusals, tls } = discover(library(gnutlsLike(shape)).file);
    assert.deepEqual([stacks, tls], [[], "unknown"]);
    assert.match(refusals[0]?.reason ?? "", /no table/);
  });
}

test("libnettle's public functions are hooked, and it is known to seal no records itself", () => {
  const { file, addressOf } = library(nettleLike);
  const { stacks, tls } = discover(file);
  assert.deepEqual([tls, stacks[0]?.version, stacks[0]?.includesProtocol], ["known", "nettle 3.10", false]);
  const functions = ["set_key", "set_nonce", "update", "encrypt"].map((name) => `nettle_chacha_poly1305_${name}`);
  assert.deepEqual(
    stacks[0]?.hooks.map(({ address }) => address),
    functions.map(addressOf),
  );
});

test("the system's own libgnutls: all at instructions that are emulated", { skip: process.arch !== "x64" }, () => {
  const path = execFileSync("sh", ["-c", "ldconfig -p | sed -n 's/.*libgnutls.so.30 .*=> //p' | head -n 1"], {
    encoding: "utf8",
  }).trim();
  const { stacks, tls } = discover(path);
  assert.equal(tls, "known");
  const hooks = stacks.flatMap((stack) => stack.hooks);
  // Tables for processors with AVX, with PCLMULQDQ, with AES alone, with SSSE3 alone.
  for (const program of ["gnutls_gcm_key", "gnutls_gcm_nonce", "gnutls_gcm_seal"])
    assert.ok(hooks.filter((hook) => hook.program === program).length >= 4, program);
  for (const { symbol, point } of hooks) assert.equal(point.cost, "emulated", `${symbol}: ${point.reason}`);
});
