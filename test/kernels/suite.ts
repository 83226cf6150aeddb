/**
 * What is run on every kernel: parsers, ciphers and the wire by test runs, links and maps. Not all of the tests: software
 * emulation is ten to thirty times slower.
 */
const everywhere = [
  "test/kernel/h2.test.ts",
  "test/kernel/h1.test.ts",
  "test/kernel/loader.test.ts",
  "test/kernel/crypto-aes-gcm.test.ts",
  "test/kernel/crypto-chacha20-poly1305.test.ts",
] as const;

/** And the whole way from real clients to the wire by `kloak run`, which refuses a kernel before 6.6. */
export const coreSuite = {
  guest: everywhere,
  host: ["test/stacks/records.test.ts", ...everywhere],
} as const;

/** Left out: it loads a hundred objects, and there is nothing of a kernel in it. */
export const skipped = "nothing is left open";
