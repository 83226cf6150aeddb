/**
 * What is run on every kernel: the whole way from a real client to the wire by `kloak run`, parsers, ciphers and the wire by
 * test runs, links and maps. Not all of the tests: software emulation is ten to thirty times slower.
 */
export const coreSuite: readonly { readonly file: string; readonly only?: string }[] = [
  {
    file: "test/stacks/records.test.ts",
    only: "one request|key changes between requests|two secrets|body of every size|more than one record|as user",
  },
  { file: "test/kernel/h2.test.ts" },
  { file: "test/kernel/h1.test.ts" },
  { file: "test/kernel/loader.test.ts" },
  { file: "test/kernel/crypto-aes-gcm.test.ts" },
  { file: "test/kernel/crypto-chacha20-poly1305.test.ts" },
];

/** Left out: it loads a hundred objects, and there is nothing of a kernel in it. */
export const skipped = "nothing is left open";
