import { constantReturned as constantArm64, fieldRead as fieldArm64 } from "./arm64/accessor.ts";
import { locate, segmentFlag } from "./elf/image.ts";
import type { ElfImage } from "./elf/image.ts";
import { lookup } from "./elf/symbols.ts";
import type { ElfSymbol, SymbolTable } from "./elf/symbols.ts";
import { codeOf, pointOf } from "./function.ts";
import type { Hook, StackPlan, StackRefusal } from "./plan.ts";
import { constantReturned as constantX86, fieldRead as fieldX86 } from "./x86/accessor.ts";
import type { Field } from "./x86/accessor.ts";
import { choosePointIf } from "./x86/prologue.ts";
import type { ProbePoint } from "./x86/prologue.ts";

interface Hooked {
  readonly program: string;
  readonly symbol: string;
  readonly argumentCount: number;
  readonly required: boolean;
  /** Of use only for contexts that encrypt: where a branch tells them apart, the others need not be stopped. */
  readonly encryptingOnly?: boolean;
}

/** Public functions of libcrypto, unchanged in name and arguments from 1.1.0 to 4.0. */
const hooked: readonly Hooked[] = [
  { program: "openssl_cipher_init", symbol: "EVP_CipherInit_ex", argumentCount: 6, required: true },
  {
    program: "openssl_cipher_update",
    symbol: "EVP_CipherUpdate",
    argumentCount: 5,
    required: true,
    encryptingOnly: true,
  },
  { program: "openssl_cipher", symbol: "EVP_Cipher", argumentCount: 4, required: true },
  { program: "openssl_cipher_ctrl", symbol: "EVP_CIPHER_CTX_ctrl", argumentCount: 4, required: true },
  { program: "openssl_bio_write", symbol: "BIO_write", argumentCount: 3, required: true },
  { program: "openssl_cipher_free", symbol: "EVP_CIPHER_CTX_free", argumentCount: 1, required: false },
];

interface Checked {
  readonly name: string;
  /** Accessors that read the field; the first that is there is asked. OpenSSL 3.0 renamed them. */
  readonly accessors: readonly string[];
  readonly expected: Field | undefined;
}

/** `cipherNid` and `cipherKeyLength` are what the programs read; the others are told, and where they lie helps (`pointBehindBranch`). */
const checked: readonly Checked[] = [
  { name: "cipherNid", accessors: ["EVP_CIPHER_get_nid", "EVP_CIPHER_nid"], expected: { offset: 0, bytes: 4 } },
  {
    name: "cipherKeyLength",
    accessors: ["EVP_CIPHER_get_key_length", "EVP_CIPHER_key_length"],
    expected: { offset: 8, bytes: 4 },
  },
  {
    name: "contextCipher",
    accessors: ["EVP_CIPHER_CTX_get0_cipher", "EVP_CIPHER_CTX_cipher"],
    expected: undefined,
  },
  {
    name: "contextEncrypting",
    accessors: ["EVP_CIPHER_CTX_is_encrypting", "EVP_CIPHER_CTX_encrypting"],
    expected: undefined,
  },
];

/** BoringSSL, AWS-LC and LibreSSL define the functions above too, but seal records through EVP_AEAD. */
const otherLibraries = ["EVP_AEAD_CTX_seal", "EVP_AEAD_CTX_init", "EVP_AEAD_CTX_open"];

const names = [
  ...hooked.map(({ symbol }) => symbol),
  ...checked.flatMap(({ accessors }) => accessors),
  ...otherLibraries,
  "OpenSSL_version_num",
  "SSL_CTX_new",
];

/** @throws ElfError */
export function recogniseOpenssl(image: ElfImage): StackPlan | StackRefusal | undefined {
  const symbols = lookup(image, names);
  if (otherLibraries.some((name) => symbols.defined.has(name))) return undefined;
  const missing = hooked.filter(({ symbol, required }) => required && !symbols.defined.has(symbol));
  if (missing.length === hooked.filter(({ required }) => required).length) return undefined;
  // A program may well define its own BIO_write; a libcrypto it is when it has the cipher functions.
  if (missing.some(({ symbol }) => symbol === "EVP_CipherInit_ex" || symbol === "EVP_CipherUpdate")) return undefined;
  const refuse = (reason: string): StackRefusal => ({ stack: "openssl", reason });
  if (missing.length > 0) return refuse(`${missing.map(({ symbol }) => symbol).join(", ")} not found`);

  const offsets: Record<string, number> = {};
  let encrypting: Field | undefined;
  for (const { name, accessors, expected } of checked) {
    const found = readField(image, symbols, accessors);
    if (found.field !== undefined) offsets[name] = found.field.offset;
    if (name === "contextEncrypting") encrypting = found.field;
    if (expected === undefined) continue;
    if (found.field === undefined) return refuse(`${found.accessor}: ${found.why}`);
    if (found.field.offset !== expected.offset || found.field.bytes !== expected.bytes) {
      return refuse(
        `${found.accessor} reads ${found.field.bytes} bytes at +${found.field.offset}, expected ${expected.bytes} at +${expected.offset}`,
      );
    }
  }

  const hooks: Hook[] = [];
  for (const entry of hooked) {
    for (const symbol of symbols.defined.get(entry.symbol) ?? []) {
      const place = locate(image, symbol.address, segmentFlag.execute);
      if (place === undefined) {
        if (!entry.required) continue;
        return refuse(`${symbol.name} lies outside the file's code`);
      }
      const point = pointBehindBranch(image, symbol, entry, encrypting) ?? pointOf(image, symbol, entry.argumentCount);
      hooks.push({
        program: entry.program,
        symbol: symbol.name,
        address: symbol.address,
        fileOffset: place.offset + point.offset,
        point,
        required: entry.required,
      });
    }
  }
  return {
    stack: "openssl",
    version: version(image, symbols),
    machine: image.machine,
    hooks,
    offsets,
    includesProtocol: symbols.defined.has("SSL_CTX_new"),
  };
}

/** Where the function has told apart already what encrypts. */
function pointBehindBranch(
  image: ElfImage,
  symbol: ElfSymbol,
  entry: Hooked,
  encrypting: Field | undefined,
): ProbePoint | undefined {
  if (image.machine !== "x86-64" || entry.encryptingOnly !== true || encrypting === undefined) return undefined;
  const { code, complete } = codeOf(image, symbol);
  return choosePointIf(code, encrypting, complete);
}

function readField(
  image: ElfImage,
  symbols: SymbolTable,
  accessors: readonly string[],
): { readonly accessor: string; readonly field: Field | undefined; readonly why: string } {
  for (const name of accessors) {
    const symbol = symbols.defined.get(name)?.[0];
    if (symbol === undefined) continue;
    const { code } = codeOf(image, symbol);
    const field = image.machine === "x86-64" ? fieldX86(code) : fieldArm64(code);
    const start = code.subarray(0, 16).toString("hex");
    return { accessor: name, field, why: `its code is not understood (${start})` };
  }
  return {
    accessor: accessors.join(" or "),
    field: undefined,
    why: "not found, so the field's place cannot be checked",
  };
}

/** OPENSSL_VERSION_NUMBER: 0xMNNFFPPS before 3.0 (PP counts letters), 0xMNN00PP0 since. */
function version(image: ElfImage, symbols: SymbolTable): string | undefined {
  const symbol = symbols.defined.get("OpenSSL_version_num")?.[0];
  if (symbol === undefined) return undefined;
  const { code } = codeOf(image, symbol);
  const number = image.machine === "x86-64" ? constantX86(code) : constantArm64(code);
  if (number === undefined) return undefined;
  const major = number >>> 28;
  const minor = (number >>> 20) & 0xff;
  const patch = (number >>> 4) & 0xff;
  if (major >= 3) return `${major}.${minor}.${patch}`;
  const letter = patch === 0 ? "" : String.fromCharCode(0x60 + patch);
  return `${major}.${minor}.${(number >>> 12) & 0xff}${letter}`;
}
