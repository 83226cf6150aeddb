import type { ElfImage } from "../elf/image.ts";
import type { Hook, StackPlan, StackRefusal } from "../plan.ts";
import { matches, signature } from "../signature.ts";
import { decode } from "../x86/decode.ts";

interface Hooked {
  readonly program: string;
  readonly symbol: string;
  /** How the function begins. */
  readonly code: string;
  /** Where the breakpoint goes: an instruction before which no argument that is heard has changed. */
  readonly at: number;
  /** False: only some versions have it. */
  readonly required: boolean;
}

/**
 * ring 0.17.3 to 0.17.14. Each is long enough to tell the function from its twin that opens, and shows what the programs
 * rely on: AES_KEY's number of rounds at +240 (`mov 0xf0(%rcx)`), ChaCha20's key, counter and nonce in its last argument.
 */
export const hooked: readonly Hooked[] = [
  {
    program: "ring_gmult",
    symbol: "gcm_gmult_clmul",
    code: "f30f6f07 660f6f2d........ f30f6f16 f30f6f6620 660f3800c5 660f6fc8 660f70d84e 660fefd8 660f3a44c200 660f3a44ca11 660f3a44dc00",
    at: 0,
    required: false,
  },
  {
    program: "ring_ghash",
    symbol: "gcm_ghash_clmul",
    code: "66440f6f15........ f30f6f07 f30f6f16 f30f6f7e20 66410f3800c2 4883e910 0f84........ f30f6f7610",
    at: 32,
    required: true,
  },
  {
    program: "ring_ghash",
    symbol: "gcm_ghash_avx",
    code: "c5f877 c57a6f17 4c8d15........ 488d7640 c57a6f2d........ c4422900d5 4881f980000000 0f82........ 4881e980000000 c57a6f7270",
    at: 38,
    required: true,
  },
  {
    program: "ring_ghash",
    symbol: "gcm_ghash_vpclmulqdq_avx2_1",
    code: "c5fa6f35........ c5fa6f3d........ c5fa6f2f c4e25100ee c5fa6f02 c4e27900c6 c5d1efe8 c5fa6f4670 c4e35144c800 c4e35144d001 c4e35144d810",
    // Before it there are only `vmovdqu`, which the kernel's uprobes refuse: silently, as a file's code is mapped.
    at: 20,
    required: false,
  },
  {
    program: "ring_gcm_seal",
    symbol: "aes_gcm_enc_update_vaes_avx2",
    code: "4154 4c8b642410 c4e27d5a05........ c4c17a6f0c24 c4e27100c8 c4427d5a18 c4622500d8 448b91f0000000 468d1495ecffffff 4e8d5c9160 c4627d5a09 c4427d5a13 c525fe1d........ 4883fa7f 0f86........ c4c17e6fb980000000 c4417e6f81a0000000 c5fe6f15........ c4622500e0",
    at: 0,
    required: false,
  },
  {
    program: "ring_gcm_seal",
    symbol: "aesni_gcm_encrypt",
    code: "4831c0 4881fa20010000 0f82........ 55 4889e5 53 4154 4155 4156 4157 c5f877 c4c17a6f08 4883c480 418b580c",
    at: 10,
    required: true,
  },
  {
    program: "ring_gcm_seal",
    symbol: "aes_hw_ctr32_encrypt_blocks",
    code: "4883fa01 75.. 410f1010 0f101f 8b91f0000000 0f1001 0f104910 488d4920 0f57d0 660f38dcd1 ffca 0f1009 488d4910 75f0",
    at: 4,
    required: true,
  },
  {
    program: "ring_chacha20_seal",
    symbol: "chacha20_poly1305_seal",
    code: "55 53 4154 4155 4156 4157 4151 4881ec40010000 488d6c2420 4883e5e0 498b5938 4801d3 4c894520 48895d28 4889d3",
    at: 0,
    required: true,
  },
];

const signatures = hooked.map(({ code }) => signature(code));

/** Two for two instruction sets, twice for two versions in one program. */
const matchesMax = 4;

/** For a file that holds rustls' text and no other library's: the same assembly is in BoringSSL and OpenSSL too. */
export function recogniseRing(image: ElfImage): StackPlan | StackRefusal | undefined {
  if (image.machine !== "x86-64") return undefined;
  const hooks: Hook[] = [];
  const missing: string[] = [];
  const everywhere = matches(image, signatures, matchesMax + 1);
  for (const [index, { program, symbol, at, required }] of hooked.entries()) {
    const found = everywhere[index] ?? [];
    if (found.length > matchesMax) {
      return { stack: "ring", reason: `more than ${matchesMax} functions begin like ${symbol}` };
    }
    if (found.length === 0 && required) missing.push(symbol);
    const instruction = decode(signatures[index]?.bytes ?? Buffer.alloc(0), at);
    for (const { address, fileOffset } of found) {
      const cost = instruction?.emulated === "always" ? "emulated" : "single-step";
      const point = {
        offset: at,
        instruction: instruction?.text ?? "vector",
        cost,
        reason: "part of the signature",
      } as const;
      hooks.push({ program, symbol, address, fileOffset: fileOffset + at, point, required: true });
    }
  }
  if (hooks.length === 0) return undefined;
  if (missing.length > 0) return { stack: "ring", reason: `no code like that of ${missing.join(", ")}` };
  return {
    stack: "ring",
    version: undefined,
    machine: image.machine,
    hooks,
    offsets: { aesKeyRounds: 240 },
    includesProtocol: true,
  };
}
