/** What libgnutls looks like from outside; each part can be other than it is. */
export interface GnutlsShape {
  /** GNUTLS_CIPHER_… for which the table is registered. */
  readonly ciphers?: readonly number[];
  /** Of the table's eleven functions; "0": none. */
  readonly table?: readonly string[];
}

const functions = ["init", "set_key", "set_iv", "encrypt", "decrypt", "aead_encrypt", "aead_decrypt", "deinit", "auth"];
const usual = [
  "init",
  "set_key",
  "set_iv",
  "0",
  "encrypt",
  "decrypt",
  "aead_encrypt",
  "aead_decrypt",
  "deinit",
  "auth",
];

export function gnutlsLike({ ciphers = [10, 39, 11], table = [...usual, "tag"] }: GnutlsShape = {}): string {
  const define = (name: string) =>
    `__attribute__((noinline)) static int ${name}(void *a, void *b, long c) { return sink(a, b, c, "${name}") + 1; }`;
  return `
int sink(void *, ...);
${[...functions, "tag"].map(define).join("\n")}
static int (*const other[])(void *, void *, long) = { init, set_key, set_iv, 0, encrypt, decrypt, 0, 0, deinit, 0, 0 };
static int (*const gcm[])(void *, void *, long) = { ${table.join(", ")} };
__attribute__((noinline)) static int enter(int cipher, int priority, const void *table, int owned)
{ __asm__ volatile("" :: "r"(cipher), "r"(table)); return sink(0, cipher, priority, table, owned); }
int start(void)
{
	int failed = enter(4, 80, other, 0) | enter(5, 80, other, 0);
	${ciphers.map((cipher) => `failed |= enter(${cipher}, 80, gcm, 0);`).join("\n\t")}
	return failed;
}
int gnutls_record_send(void *s, const void *d, long n) { return sink(s, d, n) + 1; }
int gnutls_aead_cipher_encryptv(void *h, void *n, long nl, void *a, int ac, long t, void *i, int ic, void *c, long *cl)
{ return sink(h, n, nl, a, ac, t, i, ic, c, cl) + 1; }
const char *gnutls_check_version(const char *wanted) { return wanted ? 0 : "3.8.9"; }
const char label[] = "c ap traffic";
`;
}

export const nettleLike = `
int sink(void *, ...);
void nettle_chacha_poly1305_set_key(void *c, const void *k) { sink(c, k); }
void nettle_chacha_poly1305_set_nonce(void *c, const void *n) { sink(c, n); }
void nettle_chacha_poly1305_update(void *c, long n, const void *d) { sink(c, n, d); }
void nettle_chacha_poly1305_encrypt(void *c, long n, void *d, const void *s) { sink(c, n, d, s); }
int nettle_version_major(void) { return 3; }
int nettle_version_minor(void) { return 10; }
`;
