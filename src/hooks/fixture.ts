import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Small real ELF files for tests, made by the compiler that builds the data plane. */
export class Workshop {
  readonly directory = mkdtempSync(join(tmpdir(), "kloak-hooks-"));

  /** Compiles and links C; `flags` decide what comes out. */
  link(name: string, code: string, flags: readonly string[]): string {
    const source = join(this.directory, `${name}.c`);
    const output = join(this.directory, name);
    writeFileSync(source, code);
    const common = ["-O2", "-fPIC", "-nostdlib", "-fno-stack-protector", "-fcf-protection=none", "-Wl,--build-id=sha1"];
    execFileSync("clang-19", [...common, ...flags, "-o", output, source], { stdio: ["ignore", "pipe", "pipe"] });
    return output;
  }

  close(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** What libcrypto looks like from outside. */
export const libcryptoLike = `
struct cipher { int nid; int block_size; int key_len; };
struct context { struct cipher *cipher; void *engine; int encrypt; };
int sink(void *, ...);
int EVP_CipherInit_ex(struct context *c, void *t, void *e, void *k, void *iv, int enc) { return sink(c, t, e, k, iv, enc, 0); }
int EVP_CipherUpdate(struct context *c, void *out, int *l, void *in, int n) { return c->encrypt ? sink(c, out, l, in, n) : 0; }
int EVP_Cipher(struct context *c, void *out, void *in, unsigned n) { return sink(c, out, in, n) + 1; }
int EVP_CIPHER_CTX_ctrl(struct context *c, int type, int arg, void *p) { return sink(c, type, arg, p) + 1; }
int BIO_write(void *b, const void *data, int n) { return n <= 0 ? 0 : sink(b, data, n); }
void EVP_CIPHER_CTX_free(struct context *c) { if (c) sink(c); }
int EVP_CIPHER_get_nid(const struct cipher *c) { return c->nid; }
int EVP_CIPHER_get_key_length(const struct cipher *c) { return c->key_len; }
unsigned long OpenSSL_version_num(void) { return 0x30500070L; }
`;
