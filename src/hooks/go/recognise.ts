import { locate, segmentFlag } from "../elf/image.ts";
import type { ElfImage } from "../elf/image.ts";
import { ElfError } from "../elf/source.ts";
import type { Hook, StackPlan, StackRefusal } from "../plan.ts";
import { codeStart } from "./code-start.ts";
import { choosePoint } from "./entry.ts";
import { functionsNamed, readPclntab } from "./pclntab.ts";
import type { GoFunction } from "./pclntab.ts";
import { goVersion } from "./version.ts";

interface Hooked {
  readonly program: string;
  /** How the function's name ends; what stands before has changed, and programs bring copies of their own. */
  readonly endings: readonly string[];
  /** Bytes of its arguments, and those that its code must be seen to read. */
  readonly argumentBytes: number;
  readonly argumentsAt: readonly number[];
}

const hooked: readonly Hooked[] = [
  {
    // func gcmAesEnc(productTable *[256]byte, dst, src []byte, ctr, T *[16]byte, ks []uint32)
    program: "go_gcm_seal",
    endings: ["crypto/aes.gcmAesEnc", "/aes/gcm.gcmAesEnc"],
    argumentBytes: 96,
    argumentsAt: [8, 16, 40, 48, 64, 72, 80],
  },
  {
    // func chacha20Poly1305Seal(dst []byte, key []uint32, src, ad []byte)
    program: "go_chacha20_seal",
    endings: ["/chacha20poly1305.chacha20Poly1305Seal"],
    argumentBytes: 96,
    argumentsAt: [8, 32, 56, 64, 80],
  },
];

/** Seals the records of crypto/tls, and of copies of it. */
const protocol = ".(*halfConn).encrypt";
/** With GOEXPERIMENT=boringcrypto it leaves them to BoringSSL. */
const boring = "_goboringcrypto_EVP_AEAD_CTX_seal";

/** Undefined: no Go program, or one without TLS. */
export function recogniseGo(image: ElfImage): StackPlan | StackRefusal | undefined {
  const refuse = (reason: string): StackRefusal => ({ stack: "go", reason });
  try {
    const table = readPclntab(image);
    if (table === undefined || functionsNamed(image, table, protocol).length === 0) return undefined;
    if (image.machine !== "x86-64") return refuse(`Go's TLS code for ${image.machine} is not hooked`);
    if (functionsNamed(image, table, boring).length > 0) return refuse("built with GOEXPERIMENT=boringcrypto");
    const start = codeStart(image, table);
    const hooks: Hook[] = [];
    for (const entry of hooked) {
      const functions = entry.endings.flatMap((ending) => functionsNamed(image, table, ending));
      if (functions.length === 0) {
        return refuse(`no function ${entry.endings.map((ending) => `*${ending}`).join(" or ")}: built with purego?`);
      }
      for (const found of functions) {
        const hook = hookOf(image, start, entry, found);
        if (typeof hook === "string") return refuse(`${found.name}: ${hook}`);
        hooks.push(hook);
      }
    }
    return {
      stack: "go",
      version: goVersion(image),
      machine: image.machine,
      hooks,
      offsets: {},
      includesProtocol: true,
    };
  } catch (error) {
    if (!(error instanceof ElfError) || error.code === "elf-unreadable") throw error;
    return refuse(error.message);
  }
}

function hookOf(image: ElfImage, start: number, entry: Hooked, found: GoFunction): Hook | string {
  if (found.argumentBytes !== entry.argumentBytes) {
    return `has ${found.argumentBytes} bytes of arguments, expected ${entry.argumentBytes}`;
  }
  const address = start + found.entry;
  const place = locate(image, address, segmentFlag.execute);
  if (place === undefined || place.left < found.size) return "lies outside the file's code";
  const point = choosePoint(image.source.read(place.offset, Math.min(found.size, 256)), entry.argumentsAt);
  if (typeof point === "string") return point;
  const fileOffset = place.offset + point.offset;
  return { program: entry.program, symbol: found.name, address, fileOffset, point, required: true };
}
