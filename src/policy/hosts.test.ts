import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import { addressBytes, addressText } from "./address.ts";
import { type Host, hostText, parseHost, parseHosts } from "./hosts.ts";
import { PolicyError } from "./policy-error.ts";

const accepted: readonly (readonly [written: string, meant: string])[] = [
  ["api.openai.com", "exact api.openai.com"],
  ["API.OpenAI.com.", "exact api.openai.com"],
  ["api.openai.com:443", "exact api.openai.com:443"],
  ["localhost", "exact localhost"],
  ["my_service.internal", "exact my_service.internal"],
  ["payments.svc:8443", "exact payments.svc:8443"],
  ["face:443", "exact face:443"],
  ["bücher.example", "exact xn--bcher-kva.example"],
  ["BÜCHER.example:8443", "exact xn--bcher-kva.example:8443"],
  ["a。b.com", "exact a.b.com"],
  ["*.example.com", "wildcard *.example.com"],
  ["*.Example.com.:8443", "wildcard *.example.com:8443"],
  ["*.bücher.example", "wildcard *.xn--bcher-kva.example"],
  ["192.0.2.1", "network 192.0.2.1"],
  ["192.0.2.1:8443", "network 192.0.2.1:8443"],
  ["::ffff:192.0.2.1", "network 192.0.2.1"],
  ["10.0.0.0/8", "network 10.0.0.0/8"],
  ["10.0.0.0/8:443", "network 10.0.0.0/8:443"],
  ["192.0.2.1/32", "network 192.0.2.1"],
  ["2001:DB8::1", "network 2001:db8::1"],
  ["[2001:db8::1]", "network 2001:db8::1"],
  ["[2001:db8::1]:443", "network [2001:db8::1]:443"],
  ["2001:db8::/32", "network 2001:db8::/32"],
  ["[2001:db8::/32]:443", "network [2001:db8::/32]:443"],
  ["[2001:db8::]/32:443", "network [2001:db8::/32]:443"],
  ["::1", "network ::1"],
];

for (const [written, meant] of accepted) {
  test(`${written} means ${meant}`, () => {
    const host = parseHost(written);
    assert.equal(`${host.kind} ${hostText(host)}`, meant);
    assert.deepEqual(parseHost(hostText(host)), host);
  });
}

const refused: readonly (readonly [written: string, message: RegExp])[] = [
  ["*", /would allow every host/],
  ["*:443", /would allow every host/],
  ["*.com", /top-level domain/],
  ["api.*.com", /star.*\*\.example\.com/],
  ["*api.example.com", /star/],
  ["a.*", /star/],
  ["**.example.com", /star/],
  ["*.*.example.com", /star/],
  ["https://api.openai.com/v1", /scheme.*"api\.openai\.com"/],
  ["https://user:pass@api.openai.com:8443/v1", /scheme.*"api\.openai\.com:8443"/],
  ["api.openai.com/v1/chat", /path.*"api\.openai\.com"/],
  ["api.openai.com:443/v1", /path.*"api\.openai\.com:443"/],
  ["api.openai.com?x=1", /path/],
  ["me@api.openai.com", /user name.*"api\.openai\.com"/],
  ["a.com b.com", /white space.*commas/],
  ["a.com\nb.com", /white space/],
  ["a..com", /empty label/],
  [".example.com", /empty label/],
  ["example.com..", /empty label/],
  ["*.", /empty label/],
  ["-a.example.com", /label "-a"/],
  ["a-.example.com", /label "a-"/],
  ["a!.example.com", /label "a!"/],
  [`${"a".repeat(64)}.com`, /63/],
  [Array.from({ length: 64 }, () => "abcd").join("."), /253/],
  ["api.openai.com:0", /1 to 65535/],
  ["api.openai.com:65536", /1 to 65535/],
  ["api.openai.com:https", /1 to 65535/],
  ["api.openai.com:", /1 to 65535/],
  ["1.2.3", /neither an IP address nor a name/],
  ["256.1.1.1", /neither/],
  ["0x7f.1", /neither/],
  ["１２７.0.0.1", /neither/],
  ["01.2.3.4", /neither/],
  ["10.0.0.1/8", /after its prefix.*"10\.0\.0\.0\/8"/],
  ["2001:db8::1/32", /after its prefix.*"2001:db8::\/32"/],
  ["10.0.0.0/33", /\/1 to \/32/],
  ["10.0.0.0/", /\/1 to \/32/],
  ["10.0.0.0/x", /\/1 to \/32/],
  ["2001:db8::/129", /\/1 to \/128/],
  ["0.0.0.0/0", /every address/],
  ["::/0", /every address/],
  ["::ffff:0:0/96", /every address/],
  ["::/64", /every address/],
  ["fe80::1%eth0", /not an IPv6 address/],
  ["[fe80::1%eth0]:443", /not an IPv6 address/],
  ["2001:db8", /1 to 65535/],
  ["[api.example.com]:443", /not an IPv6 address/],
  ["1:2:3:4:5:6:7:8:9", /not an IPv6 address/],
];

for (const [written, message] of refused) {
  test(`refused, with the input and the fix: ${JSON.stringify(written.slice(0, 60))}`, () => {
    assert.throws(
      () => parseHosts([written]),
      (error: unknown) => {
        assert.ok(error instanceof PolicyError);
        assert.match(error.message, message);
        assert.ok(error.message.includes(JSON.stringify(written).slice(1, 50)), error.message);
        assert.match(error.message, /.+; .+/);
        return true;
      },
    );
  });
}

test("lists are comma-separated or arrays, or both", () => {
  const names = (hosts: readonly Host[]) => hosts.map(hostText);
  assert.deepEqual(names(parseHosts("a.com, *.b.com:8443 ,10.0.0.0/8")), ["a.com", "*.b.com:8443", "10.0.0.0/8"]);
  assert.deepEqual(names(parseHosts(["a.com,b.com", "c.com"])), ["a.com", "b.com", "c.com"]);
  assert.throws(() => parseHosts("a.com,,b.com"), /empty entry.*comma/);
  assert.throws(() => parseHosts("a.com,"), /empty entry/);
  for (const nothing of ["", " ", [], [""]]) assert.throws(() => parseHosts(nothing), { code: "hosts-missing" });
});

test("whatever is written, it is parsed to a host that reads back the same, or refused with a PolicyError", () => {
  const pieces = fc.constantFrom(
    "a",
    "B",
    "1",
    ".",
    "*",
    ":",
    "/",
    "[",
    "]",
    "::",
    "443",
    "ü",
    "-",
    "%",
    "10.0.0.0",
    " ",
  );
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.array(pieces, { maxLength: 12 }).map((each) => each.join("")),
    fc.ipV6(),
    fc.ipV4(),
    fc.domain(),
  );
  fc.assert(
    fc.property(text, (written) => {
      try {
        const host = parseHost(written);
        assert.deepEqual(parseHost(hostText(host)), host);
        if (host.kind !== "network") assert.match(host.name, /^[a-z0-9_.-]{1,253}$/);
      } catch (error) {
        assert.ok(error instanceof PolicyError, String(error));
      }
    }),
    { numRuns: 5000 },
  );
});

test("addresses read back as they were written", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
      assert.deepEqual(addressBytes(addressText(bytes)), Buffer.from(bytes));
    }),
  );
  fc.assert(fc.property(fc.ipV4(), (text) => assert.equal(addressText(addressBytes(text) as Buffer), text)));
  // RFC 5952 4
  for (const text of [
    "2001:db8::1",
    "::",
    "::1",
    "2001:db8:0:1:1:1:1:1",
    "2001:0:0:1::1",
    "2001:db8::1:0:0:1",
    "fe80::",
  ]) {
    assert.equal(addressText(addressBytes(text) as Buffer), text);
  }
});
