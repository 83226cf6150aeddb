import { locate, segmentFlag } from "../elf/image.ts";
import type { ElfImage } from "../elf/image.ts";
import { lookup } from "../elf/symbols.ts";
import type { ElfSymbol, SymbolTable } from "../elf/symbols.ts";
import { codeOf, pointOf } from "../function.ts";
import type { Hook, StackPlan, StackRefusal } from "../plan.ts";
import { constantReturned } from "../x86/accessor.ts";
import { aesGcmTables } from "./cipher-tables.ts";

interface Hooked {
  readonly program: string;
  readonly symbol: string;
  readonly argumentCount: number;
}

/** A record of TLS 1.3. */
const offer: Hooked = { program: "gnutls_offer", symbol: "gnutls_aead_cipher_encryptv", argumentCount: 10 };

/** GnuTLS leaves ChaCha20-Poly1305 to these public functions of libnettle. */
const nettle: readonly Hooked[] = [
  { program: "gnutls_chacha20_key", symbol: "nettle_chacha_poly1305_set_key", argumentCount: 2 },
  { program: "gnutls_chacha20_nonce", symbol: "nettle_chacha_poly1305_set_nonce", argumentCount: 2 },
  { program: "gnutls_chacha20_aad", symbol: "nettle_chacha_poly1305_update", argumentCount: 3 },
  { program: "gnutls_chacha20_seal", symbol: "nettle_chacha_poly1305_encrypt", argumentCount: 4 },
];

const names = [
  offer.symbol,
  ...nettle.map(({ symbol }) => symbol),
  "gnutls_check_version",
  "nettle_version_major",
  "nettle_version_minor",
];

/**
 * libgnutls, or the libnettle beside it. Both are only known as shared libraries: linked into a program they have no
 * dynamic symbols.
 *
 * @throws ElfError
 */
export function recogniseGnutls(image: ElfImage): StackPlan | StackRefusal | undefined {
  const symbols = lookup(image, names, { dynamicOnly: true });
  const plan = (version: string | undefined, hooks: readonly Hook[], includesProtocol: boolean): StackPlan => ({
    stack: "gnutls",
    version,
    machine: image.machine,
    hooks,
    offsets: {},
    includesProtocol,
  });
  const refuse = (reason: string): StackRefusal => ({ stack: "gnutls", reason });
  const here = (entry: Hooked) => symbols.defined.get(entry.symbol) ?? [];

  if (nettle.every((entry) => here(entry).length > 0)) {
    if (image.machine !== "x86-64") return refuse(`libnettle for ${image.machine} is not hooked`);
    const hooks = nettle.flatMap((entry) => here(entry).map((symbol) => hookOf(image, entry, symbol)));
    return plan(nettleVersion(image, symbols), hooks, false);
  }
  if (here(offer).length === 0) return undefined;
  if (image.machine !== "x86-64") return refuse(`GnuTLS for ${image.machine} is not hooked`);
  const tables = aesGcmTables(image);
  if (tables.length === 0) return refuse("no table of its functions for AES-GCM is found");
  const functions = tables.flatMap(({ setKey, setNonce, seal }): Hook[] => [
    hookOf(image, { program: "gnutls_gcm_key", symbol: "AES-GCM set key", argumentCount: 3 }, unnamed(setKey)),
    hookOf(image, { program: "gnutls_gcm_nonce", symbol: "AES-GCM set nonce", argumentCount: 3 }, unnamed(setNonce)),
    hookOf(image, { program: "gnutls_gcm_seal", symbol: "AES-GCM encrypt", argumentCount: 10 }, unnamed(seal)),
  ]);
  // A function may stand in several tables.
  const hooks = new Map(functions.map((hook) => [`${hook.program} ${hook.address}`, hook]));
  const offers = here(offer).map((symbol) => hookOf(image, offer, symbol));
  return plan(gnutlsVersion(image, symbols), [...offers, ...hooks.values()], true);
}

/** The place is in the file's code: so are functions of tables, and symbols of what the loader could load. */
function hookOf(image: ElfImage, entry: Hooked, { address, size }: Pick<ElfSymbol, "address" | "size">): Hook {
  const point = pointOf(image, { address, size }, entry.argumentCount);
  const fileOffset = (locate(image, address, segmentFlag.execute)?.offset ?? 0) + point.offset;
  return { program: entry.program, symbol: entry.symbol, address, fileOffset, point, required: true };
}

function unnamed(address: number): Pick<ElfSymbol, "address" | "size"> {
  return { address, size: 0 };
}

/** The text that `gnutls_check_version` returns, of which it loads the address. */
function gnutlsVersion(image: ElfImage, symbols: SymbolTable): string | undefined {
  const symbol = symbols.defined.get("gnutls_check_version")?.[0];
  if (symbol === undefined) return undefined;
  const { code } = codeOf(image, symbol);
  for (let at = 0; at + 7 <= code.length; at++) {
    if (code[at] !== 0x48 || code[at + 1] !== 0x8d || ((code[at + 2] ?? 0) & 0xc7) !== 0x05) continue;
    const place = locate(image, symbol.address + at + 7 + code.readInt32LE(at + 3));
    if (place === undefined) continue;
    const text = image.source.read(place.offset, Math.min(place.left, 16)).toString("latin1");
    const version = /^(\d+\.\d+\.\d+)\0/.exec(text)?.[1];
    if (version !== undefined) return version;
  }
  return undefined;
}

function nettleVersion(image: ElfImage, symbols: SymbolTable): string | undefined {
  const [major, minor] = ["nettle_version_major", "nettle_version_minor"].map((name) => {
    const symbol = symbols.defined.get(name)?.[0];
    return symbol === undefined ? undefined : constantReturned(codeOf(image, symbol).code);
  });
  return major === undefined || minor === undefined ? undefined : `nettle ${major}.${minor}`;
}
