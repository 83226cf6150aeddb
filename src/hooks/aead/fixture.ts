/* What BoringSSL and AWS-LC look like from outside, in C for the tests' compilers. */

export interface AeadShape {
  /** AWS-LC numbers its AEADs. */
  readonly library?: "BoringSSL" | "AWS-LC";
  /** Lengths of keys for which AES-GCM has a table. */
  readonly gcm?: readonly number[];
  readonly chacha20?: boolean;
  /** AES-GCM-SIV, which has its tables in the file, as ChaCha20-Poly1305 has. */
  readonly siv?: boolean;
  /** Assembly in front of each function. */
  readonly before?: string;
  /** In the place of the function that opens. */
  readonly open?: string;
}

export function aeadLike(shape: AeadShape = {}): string {
  const { library = "BoringSSL", gcm = [16, 32], chacha20 = true, siv = true, before = "", open = "NAME_open" } = shape;
  const numbered = library === "AWS-LC";
  const implementation = (name: string) =>
    `
int NAME_init(struct context *c, const void *k, unsigned long n, unsigned long t) { ${before} return sink(c, k, n, t, ${name.length}); }
void NAME_cleanup(struct context *c) { sink(c, 1, ${name.length}); }
int NAME_seal(struct context *c, void *o, void *t, unsigned long *l, unsigned long m, const void *n, unsigned long nl) { ${before} return sink(c, o, t, l, m, n, nl, 2); }
int NAME_open(struct context *c, void *o, const void *n) { return sink(c, o, n, 3, ${name.length}); }`.replaceAll(
      "NAME",
      name,
    );
  const stored = (name: string, key: number) => `
const struct aead ${name}_${key} = {.key = ${key}, .nonce = 12, .overhead = 16, .tag = 16, ${numbered ? ".number = 7, .extra = 1," : ""}
  .init = ${name}_init, .cleanup = ${name}_cleanup, .seal = ${name}_seal, .open = ${open.replace("NAME", name)}};`;
  const written = (name: string, key: number) => `
static struct aead storage_${name}_${key};
void make_${name}_${key}(void) {
  struct aead *out = &storage_${name}_${key};
  __builtin_memset(out, 0, sizeof(*out));
  out->key = ${key}; out->nonce = 12; out->overhead = 16; out->tag = 16;
  ${numbered ? "out->number = 7; out->extra = 1;" : ""}
  out->init = ${name}_init; out->cleanup = ${name}_cleanup;
  out->seal = ${name}_seal; out->open = ${open.replace("NAME", name)};
}
const struct aead *get_${name}_${key}(void) { sink(0); return &storage_${name}_${key}; }`;
  return `
struct context;
int sink();
struct aead {
  unsigned char key, nonce, overhead, tag;
  ${numbered ? "unsigned short number; int extra;" : ""}
  int (*init)(); int (*init_with_direction)(); void (*cleanup)(); int (*open_old)(); int (*seal)(); int (*open)();
  int (*get_iv)(); int (*tag_len)();
};
const char label[] = "c ap traffic";
${["tls12", "tls13"].map(implementation).join("")}
${gcm.flatMap((key) => [written("tls12", key), written("tls13", key)]).join("")}
${chacha20 ? implementation("chacha20") + stored("chacha20", 32) : ""}
${siv ? implementation("siv") + stored("siv", 16) + stored("siv", 32) : ""}
void *tables[] = {${[...(chacha20 ? ["&chacha20_32"] : []), ...(siv ? ["&siv_16", "&siv_32"] : [])].join(", ")}};
int _start(void) { return sink(tables); }
`;
}
