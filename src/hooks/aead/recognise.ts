import { locate, segmentFlag } from "../elf/image.ts";
import type { ElfImage } from "../elf/image.ts";
import type { Hook, StackPlan, StackRefusal } from "../plan.ts";
import { decode } from "../x86/decode.ts";
import type { ProbePoint } from "../x86/prologue.ts";
import { methodsStored, methodsWritten } from "./methods.ts";
import type { Method } from "./methods.ts";

/** More tables than several copies of a library in one file have. */
const methodsMax = 16;

/**
 * BoringSSL and AWS-LC, and what has them inside, stripped or not. Whether it is asked depends on whether there is any sign
 * of TLS code: it reads all of the file's code.
 */
export function recogniseAead(image: ElfImage): StackPlan | StackRefusal | undefined {
  if (image.machine !== "x86-64") return undefined;
  const refuse = (reason: string): StackRefusal => ({ stack: "boringssl", reason });
  const gcm = bothKeyLengths(methodsWritten(image));
  const chacha20 = chacha20Of(methodsStored(image));
  if (gcm.length === 0 && chacha20.length === 0) return undefined;
  if (gcm.length === 0) return refuse("a table of ChaCha20-Poly1305's functions was found, none of AES-GCM's");
  if (chacha20.length === 0) return refuse("tables of AES-GCM's functions were found, none of ChaCha20-Poly1305's");
  if (gcm.length + chacha20.length > methodsMax) return refuse(`more than ${methodsMax} tables of functions`);

  const wanted = [
    ...functions(gcm, "init", "aead_gcm_init", "AES-GCM init"),
    ...functions(chacha20, "init", "aead_chacha20_init", "ChaCha20-Poly1305 init"),
    ...functions(gcm, "seal", "aead_seal", "AES-GCM seal"),
    ...functions(chacha20, "seal", "aead_seal", "ChaCha20-Poly1305 seal"),
  ];
  const hooks: Hook[] = [];
  for (const { program, symbol, address } of wanted) {
    const place = locate(image, address, segmentFlag.execute);
    const point = place === undefined ? undefined : pointOf(image.source.read(place.offset, Math.min(place.left, 32)));
    if (place === undefined || point === undefined) return refuse(`${symbol}: the start of its code is not understood`);
    hooks.push({ program, symbol, address, fileOffset: place.offset + point.offset, point, required: true });
  }
  return {
    stack: "boringssl",
    version: gcm[0]?.library,
    machine: image.machine,
    hooks,
    offsets: {},
    includesProtocol: true,
  };
}

interface Wanted {
  readonly program: string;
  readonly symbol: string;
  readonly address: number;
}

/** Each function once: TLS 1.2, 1.3 and neither have tables of their own, which share some. */
function functions(methods: readonly Method[], which: "init" | "seal", program: string, symbol: string): Wanted[] {
  return [...new Set(methods.map((method) => method[which]))].map((address) => ({ program, symbol, address }));
}

/** AES-GCM has the same functions for both lengths of key: found by both, they are no coincidence. */
function bothKeyLengths(methods: readonly Method[]): Method[] {
  return methods.filter(
    (one) =>
      one.keyLength === 32 &&
      methods.some(({ keyLength, init, seal }) => keyLength === 16 && init === one.init && seal === one.seal),
  );
}

/** ChaCha20-Poly1305 has one length of key. Others with a table in the file, AES-GCM-SIV and AES-EAX, have both. */
function chacha20Of(methods: readonly Method[]): Method[] {
  return methods.filter(
    (one) => one.keyLength === 32 && !methods.some(({ keyLength, init }) => keyLength === 16 && init === one.init),
  );
}

/**
 * The entry: what calls through a table goes there, so it begins an instruction. After endbr64, if that is cheaper. No
 * further: where the function ends is not known, and arguments on the stack are where they are only until it moves.
 */
function pointOf(code: Buffer): ProbePoint | undefined {
  const first = decode(code, 0);
  if (first === undefined) return undefined;
  const second = first.text === "endbr64" ? decode(code, first.length) : undefined;
  if (second?.emulated === "always" && second.kind === "push") {
    const reason = "the first instruction after endbr64";
    return { offset: first.length, instruction: second.text, cost: "emulated", reason };
  }
  const cost = first.emulated === "always" ? "emulated" : "single-step";
  return { offset: 0, instruction: first.text, cost, reason: "the entry, to which a table of functions points" };
}
