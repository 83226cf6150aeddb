/*
 * Where libgnutls keeps its functions for AES-GCM. They have no symbols, but they stand in tables of functions
 * (`gnutls_crypto_cipher_st`), one for each way in which a processor can do AES, and each table is registered at start
 * for the ciphers that it serves: `gnutls_crypto_single_cipher_register(GNUTLS_CIPHER_AES_128_GCM, priority, table, 0)`.
 */
import { locate, segmentFlag, segmentType } from "../elf/image.ts";
import type { ElfImage } from "../elf/image.ts";
import { relativeWords } from "../elf/relocations.ts";

/** Addresses of the functions that are listened to; their types are public: <gnutls/crypto.h>. */
export interface CipherTable {
  readonly setKey: number;
  readonly setNonce: number;
  readonly seal: number;
}

/** Places in a table, in words: set key, set nonce, and an AEAD's whole record. */
const slot = { setKey: 1, setNonce: 2, seal: 6 } as const;
/** What a cipher that can be used piece by piece and as a whole has. None of AES-GCM tells its nonce (3). */
const filled = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10];
const empty = 3;

/** GNUTLS_CIPHER_AES_128_GCM and GNUTLS_CIPHER_AES_256_GCM of <gnutls/gnutls.h>. */
const aesGcm = [10, 11];

/** How far before `mov $cipher,%edi` the address of the table may have been loaded, for several ciphers at once. */
const reach = 96;
const codeMax = 32 << 20;

/** The tables that are registered for both ciphers. */
export function aesGcmTables(image: ElfImage): CipherTable[] {
  const words = relativeWords(image);
  const served = aesGcm.map((cipher) => new Set(registeredFor(image, cipher)));
  const tables: CipherTable[] = [];
  for (const address of served[0] ?? []) {
    if (!served.every((addresses) => addresses.has(address)) || words.has(address + empty * 8)) continue;
    const functions = filled.map((index) => words.get(address + index * 8) ?? 0);
    if (!functions.every((each) => locate(image, each, segmentFlag.execute) !== undefined)) continue;
    const at = (index: number): number => words.get(address + index * 8) ?? 0;
    tables.push({ setKey: at(slot.setKey), setNonce: at(slot.setNonce), seal: at(slot.seal) });
  }
  return tables;
}

/** Addresses in written data of which the last before a `mov $cipher,%edi` is loaded. */
function* registeredFor(image: ElfImage, cipher: number): Generator<number> {
  const needle = Buffer.from([0xbf, cipher, 0, 0, 0]);
  for (const { type, flags, offset, address, fileSize } of image.segments) {
    if (type !== segmentType.load || (flags & segmentFlag.execute) === 0 || fileSize > codeMax) continue;
    const code = image.source.read(offset, fileSize);
    for (let at = code.indexOf(needle); at >= 0; at = code.indexOf(needle, at + 1)) {
      const loaded = loadedBefore(image, code, at, address);
      if (loaded !== undefined) yield loaded;
    }
  }
}

/** The address that the nearest `lea displacement(%rip),%register` before `end` loads, if it is one of written data. */
function loadedBefore(image: ElfImage, code: Buffer, end: number, start: number): number | undefined {
  const length = 7;
  for (let at = end - length; at >= Math.max(0, end - reach); at--) {
    const isLea = ((code[at] ?? 0) & 0xfb) === 0x48 && code[at + 1] === 0x8d && ((code[at + 2] ?? 0) & 0xc7) === 0x05;
    if (!isLea) continue;
    const target = start + at + length + code.readInt32LE(at + 3);
    if (locate(image, target, segmentFlag.write) !== undefined) return target;
  }
  return undefined;
}
