import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { Discoverer, discover, examine } from "./discover.ts";
import { FileSource, MemorySource } from "./elf/source.ts";
import { Workshop, libcryptoLike } from "./fixture.ts";

const workshop = new Workshop();
after(() => workshop.close());

const programs = [
  "openssl_cipher_init",
  "openssl_cipher_update",
  "openssl_cipher",
  "openssl_cipher_ctrl",
  "openssl_bio_write",
  "openssl_cipher_free",
];

test("Node's own executable is recognised, with the version that it says it has", () => {
  const { stacks, tls, identity } = discover(process.execPath);
  const [plan] = stacks;
  assert.equal(plan?.stack, "openssl");
  assert.equal(plan.version, process.versions.openssl.replace(/\+.*$/, ""));
  assert.deepEqual(
    plan.hooks.map(({ program }) => program),
    programs,
  );
  assert.deepEqual([plan.offsets["cipherNid"], plan.offsets["cipherKeyLength"]], [0, 8]);
  assert.equal(tls, "known");
  assert.match(identity.buildId ?? "", /^[0-9a-f]{40}$/);
  if (process.arch === "x64") {
    for (const { symbol, point } of plan.hooks) assert.equal(point.cost, "emulated", `${symbol}: ${point.reason}`);
  }
});

/** A file that must be recognised however it was linked. */
const linkings: readonly (readonly [what: string, flags: readonly string[], edit?: (bytes: Buffer) => void])[] = [
  ["GNU hash", ["-shared", "-Wl,--hash-style=gnu"]],
  ["System V hash", ["-shared", "-Wl,--hash-style=sysv"]],
  ["no section headers, GNU hash", ["-shared", "-s", "-Wl,--hash-style=gnu"], dropSections],
  ["no section headers, System V hash", ["-shared", "-s", "-Wl,--hash-style=sysv"], dropSections],
  ["static, not stripped", ["-shared", "-fvisibility=hidden", "-Wl,--undefined=EVP_Cipher"]],
];

function dropSections(bytes: Buffer): void {
  bytes.writeBigUInt64LE(0n, 40);
  bytes.writeUInt16LE(0, 60);
}

for (const [what, flags, edit] of linkings) {
  test(`libcrypto is recognised: ${what}`, () => {
    const bytes = readFileSync(workshop.link("libcrypto.so", libcryptoLike, flags));
    edit?.(bytes);
    const { stacks } = examine(new MemorySource(bytes));
    assert.deepEqual(
      stacks[0]?.hooks.map(({ program }) => program),
      programs,
    );
    assert.equal(stacks[0]?.version, "3.5.7");
  });
}

/** Files in which nothing may be hooked, and what must be said of them. */
const others: readonly (readonly [what: string, code: string, tls: string, sign: RegExp])[] = [
  ["nid elsewhere", libcryptoLike.replace("return c->nid", "return c->block_size"), "unknown", /reads 4 bytes at \+4/],
  [
    "key length elsewhere",
    libcryptoLike.replace("return c->key_len", "return c->nid"),
    "unknown",
    /reads 4 bytes at \+0/,
  ],
  [
    "an accessor that computes",
    libcryptoLike.replace("return c->nid", "return c->nid ^ 1"),
    "unknown",
    /not understood/,
  ],
  ["no accessor", libcryptoLike.replace("EVP_CIPHER_get_nid", "another"), "unknown", /cannot be checked/],
  ["no BIO_write", libcryptoLike.replace("BIO_write", "another"), "unknown", /BIO_write not found/],
  ["BoringSSL", `${libcryptoLike} int EVP_AEAD_CTX_seal(void) { return 0; }`, "unknown", /defines EVP_AEAD_CTX_seal/],
  ["GnuTLS", "int gnutls_record_send(void) { return 0; }", "unknown", /defines gnutls_record_send/],
  ["Java", "int JNI_CreateJavaVM(void) { return 0; }", "unknown", /defines JNI_CreateJavaVM/],
  ["TLS without symbols", 'const char label[] = "c ap traffic";', "unknown", /holds the label "c ap traffic"/],
  [
    "TLS 1.2 without symbols",
    'const char label[] = "client finished";',
    "unknown",
    /holds the label "client finished"/,
  ],
  ["rustls", 'const char label[] = "rustls c ap traffic";', "unknown", /holds the text "rustls"/],
  [
    "libssl",
    'const char label[] = "c ap traffic"; int EVP_CipherInit_ex(); int EVP_CipherUpdate(); int f(void) { return EVP_CipherInit_ex() + EVP_CipherUpdate(); }',
    "known",
    /imports EVP_CipherInit_ex/,
  ],
  [
    "NSS's ciphers",
    'const char label[] = "client finished"; int NSC_GetFunctionList(void) { return 0; }',
    "known",
    /defines NSC_GetFunctionList/,
  ],
  ["no TLS", "int BIO_write(void) { return 0; }", "none", /^$/],
];

for (const [what, code, tls, sign] of others) {
  test(`nothing is hooked, and it is said why: ${what}`, () => {
    const found = discover(workshop.link("other.so", code, ["-shared"]));
    assert.deepEqual(found.stacks, []);
    assert.equal(found.tls, tls);
    assert.match(found.evidence.map((evidence) => evidence.sign).join("; "), sign);
  });
}

test("a second TLS library in a hooked file is told", () => {
  const code = `${libcryptoLike} int SSL_CTX_new(void) { return 0; } const char a[] = "c ap traffic"; const char b[] = "rustls c ap traffic";`;
  const { stacks, tls, evidence } = discover(workshop.link("two.so", code, ["-shared"]));
  assert.equal(stacks.length, 1);
  assert.equal(tls, "unknown");
  assert.deepEqual(new Set(evidence.map(({ stack }) => stack)), new Set(["rustls"]));
});

test("what is no ELF file has no TLS code", () => {
  const path = join(workshop.directory, "script");
  writeFileSync(path, "#!/bin/sh\nexit 0\n");
  assert.equal(discover(path).tls, "none");
});

test("what is no regular file is refused, not waited for", () => {
  for (const path of ["/dev/null", workshop.directory, join(workshop.directory, "absent")]) {
    assert.throws(() => discover(path), { name: "ElfError" });
  }
});

test("a content is examined once, under whatever name, and a new content again", () => {
  const discoverer = new Discoverer();
  const path = workshop.link("cached.so", libcryptoLike, ["-shared"]);
  mkdirSync(join(workshop.directory, "sub"), { recursive: true });
  const link = join(workshop.directory, "sub", "link.so");
  symlinkSync(path, link);
  const first = discoverer.discover(path);
  assert.equal(discoverer.discover(link).stacks, first.stacks);
  copyFileSync(workshop.link("plain.so", "int f(void) { return 0; }", ["-shared"]), path);
  assert.deepEqual(discoverer.discover(path).stacks, []);
});

test("a file that is written to while it is read has no hooks, and is read again", (context) => {
  const path = workshop.link("moving.so", libcryptoLike, ["-shared"]);
  const discoverer = new Discoverer();
  const reading = context.mock.getter(FileSource.prototype, "changed", () => true);
  const { stacks, tls, evidence } = discoverer.discover(path);
  assert.deepEqual([stacks, tls, evidence[0]?.sign], [[], "unknown", "it was written to while it was read"]);
  reading.mock.restore();
  assert.equal(discoverer.discover(path).tls, "known");
});

test("that a file has been written to is seen", () => {
  const path = workshop.link("written.so", libcryptoLike, ["-shared"]);
  using source = new FileSource(path);
  assert.equal(source.changed, false);
  utimesSync(path, 0, 0);
  assert.equal(source.changed, true);
});

test("of a file of any size little is read, and what there is too much of is said", () => {
  const bytes = readFileSync(workshop.link("huge.so", 'const char label[] = "c ap traffic";', ["-shared"]));
  const size = 6 * 2 ** 30;
  for (const [segment, sign] of [
    [0, /holds more read-only data than is searched/], // headers and read-only data
    [1, /holds the label/], // code
  ] as const) {
    const copy = Buffer.from(bytes);
    const header = Number(copy.readBigUInt64LE(32)) + loadSegments(copy)[segment]! * 56;
    copy.writeBigUInt64LE(2n ** 32n, header + 32);
    dropSections(copy);
    let total = 0;
    const source = {
      name: "huge",
      size,
      read: (offset: number, length: number) => {
        total += length;
        const part = Buffer.alloc(length);
        if (offset < copy.length) copy.copy(part, 0, offset, offset + length);
        return part;
      },
    };
    const { stacks, tls, evidence } = examine(source);
    assert.deepEqual([stacks, tls], [[], "unknown"]);
    assert.match(evidence[0]?.sign ?? "", sign);
    assert.ok(total < 2 ** 30, `${total} bytes read`);
  }
});

function loadSegments(bytes: Buffer): number[] {
  const at = Number(bytes.readBigUInt64LE(32));
  const count = bytes.readUInt16LE(56);
  return Array.from({ length: count }, (_, index) => index).filter(
    (index) => bytes.readUInt32LE(at + index * 56) === 1,
  );
}

test("the overlays of two containers of one image are one inode to hook; a file changed in one of them is another", () => {
  const program = `
    import { discover } from ${JSON.stringify(new URL("discover.ts", import.meta.url).href)};
    for (const path of process.argv.slice(1)) console.log(discover(path).identity.inodeKey);
  `;
  // In a mount namespace of its own, which takes the mounts with it when it ends.
  const script = `
    set -e
    mount -t tmpfs none ${workshop.directory}
    cd ${workshop.directory}
    mkdir lower upper1 upper2 work1 work2 one two
    echo library > lower/same
    echo library > lower/changed
    mount -t overlay -o lowerdir=lower,upperdir=upper1,workdir=work1 none one
    mount -t overlay -o lowerdir=lower,upperdir=upper2,workdir=work2 none two
    echo more >> two/changed
    exec "$0" --input-type=module -e "$1" one/same two/same one/changed two/changed
  `;
  const output = execFileSync("unshare", ["-m", "sh", "-c", script, process.execPath, program], { encoding: "utf8" });
  const [one, two, before, changed] = output.trim().split("\n");
  assert.equal(one, two);
  assert.notEqual(before, changed);
});
