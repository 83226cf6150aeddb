import { segmentFlag, segmentType, readNotes, sectionType } from "./elf/image.ts";
import type { ElfImage } from "./elf/image.ts";
import { lookup } from "./elf/symbols.ts";
import { chunks } from "./elf/source.ts";
import type { StackPlan } from "./plan.ts";

/** A sign of TLS code in a file: what was looked for, and whose it is. */
export interface Evidence {
  readonly stack: string;
  readonly sign: string;
}

/**
 * Labels that every implementation holds in its read-only data, once: of the traffic secrets in TLS 1.3 (RFC 8446 7.1)
 * and of the Finished message before (RFC 5246 7.4.9).
 */
const trafficLabel = "c ap traffic";
const universal = [trafficLabel, "client finished"];

/** Exported functions by which a library without text is known. */
const functions: Readonly<Record<string, string>> = {
  EVP_AEAD_CTX_seal: "boringssl",
  EVP_AEAD_CTX_init: "boringssl",
  gnutls_record_send: "gnutls",
  SSL_ImportFD: "nss",
  mbedtls_ssl_write: "mbedtls",
  wolfSSL_write: "wolfssl",
  s2n_send: "s2n",
  // Java's own TLS is compiled at run time: there is no file to hook.
  JNI_CreateJavaVM: "java",
};

/** Texts looked for once a universal label is there; the first that is found names the stack. */
const texts: readonly (readonly [stack: string, text: string])[] = [
  ["go", "crypto/tls.(*Conn)"],
  ["aws-lc", "aws_lc_"],
  ["aws-lc", "AWS-LC"],
  ["boringssl", "boringssl"],
  ["boringssl", "BoringSSL"],
  ["rustls", "rustls"],
  ["gnutls", "GnuTLS"],
  ["wolfssl", "wolfSSL_"],
  ["mbedtls", "mbedtls_ssl_"],
  ["openssl", "OpenSSL "],
];

/** More read-only data than this is not searched; the largest real executables seen have a quarter of it. */
const searchMax = 256 << 20;

const opensslImports = ["EVP_CipherInit_ex", "EVP_CipherUpdate"];

/** NSS's ciphers, which derive keys for TLS too. Many a program has them for its certificates; records are made by libssl3. */
const softoken = "NSC_GetFunctionList";

const tooLarge: Evidence = { stack: "unknown", sign: "holds more read-only data than is searched" };

export interface TlsEvidence {
  /** "elsewhere": there is TLS code, but records are made in another file. */
  readonly verdict: "none" | "unknown" | "elsewhere";
  readonly evidence: readonly Evidence[];
}

/** Looks for TLS code in a file in which no stack was recognised. */
export function findEvidence(image: ElfImage): TlsEvidence {
  const symbols = lookup(image, [...Object.keys(functions), ...opensslImports, softoken]);
  const evidence: Evidence[] = [];
  for (const name of symbols.defined.keys()) {
    const stack = functions[name];
    if (stack !== undefined) evidence.push({ stack, sign: `defines ${name}` });
  }
  if (evidence.length > 0) return { verdict: "unknown", evidence };
  if (symbols.defined.has(softoken))
    return { verdict: "elsewhere", evidence: [{ stack: "nss", sign: `defines ${softoken}` }] };
  const { ranges, complete } = readOnlyData(image);
  if (!complete) return { verdict: "unknown", evidence: [tooLarge] };
  const label = search(image, ranges, universal);
  if (label === undefined) return packed(image);
  if (opensslImports.every((name) => symbols.imported.has(name))) {
    return { verdict: "elsewhere", evidence: [{ stack: "openssl", sign: `imports ${opensslImports.join(", ")}` }] };
  }
  const found = search(
    image,
    ranges,
    texts.map(([, text]) => text),
  );
  const stack = isGo(image) ? "go" : (texts.find(([, text]) => text === found)?.[0] ?? "unknown");
  evidence.push({ stack, sign: `holds the label "${label}"` });
  if (found !== undefined) evidence.push({ stack, sign: `holds the text "${found}"` });
  return { verdict: "unknown", evidence };
}

/**
 * Looks for another implementation beside those whose records are heard.
 *
 * @param heard which of them include the protocol, and with it the label
 */
export function findOther(
  image: ElfImage,
  heard: readonly Pick<StackPlan, "stack" | "includesProtocol">[],
): readonly Evidence[] {
  const { ranges, complete } = readOnlyData(image);
  if (!complete) return [tooLarge];
  const count = occurrences(image, ranges, trafficLabel);
  if (count <= heard.filter(({ includesProtocol }) => includesProtocol).length) return [];
  const others = texts.filter(([name]) => name !== "openssl" && heard.every(({ stack }) => stack !== name));
  const found = search(
    image,
    ranges,
    others.map(([, text]) => text),
  );
  const stack = others.find(([, text]) => text === found)?.[0] ?? "unknown";
  const label = { stack, sign: `holds the label "${trafficLabel}" ${count} times` };
  return found === undefined ? [label] : [label, { stack, sign: `holds the text "${found}"` }];
}

function occurrences(image: ElfImage, ranges: readonly Range[], needle: string): number {
  const bytesOfNeedle = Buffer.from(needle, "latin1");
  let count = 0;
  for (const { offset, size } of ranges) {
    for (const { bytes } of chunks(image.source, offset, size, needle.length - 1)) {
      for (let at = bytes.indexOf(bytesOfNeedle); at >= 0; at = bytes.indexOf(bytesOfNeedle, at + 1)) count += 1;
    }
  }
  return count;
}

/** Code that unpacks itself has no text to search. */
function packed(image: ElfImage): TlsEvidence {
  const start = image.source.read(0, Math.min(4096, image.source.size));
  if (!start.includes("UPX!")) return { verdict: "none", evidence: [] };
  return { verdict: "unknown", evidence: [{ stack: "unknown", sign: "packed with UPX" }] };
}

function isGo(image: ElfImage): boolean {
  return (
    image.sections.some(({ name }) => name === ".go.buildinfo") || readNotes(image).some(({ owner }) => owner === "Go")
  );
}

interface Range {
  readonly offset: number;
  readonly size: number;
}

/**
 * The sections that are loaded and neither written nor run, or whole segments where there are no sections. Not complete:
 * there is more than may be searched.
 */
function readOnlyData(image: ElfImage): { readonly ranges: readonly Range[]; readonly complete: boolean } {
  const loaded = 2;
  const excluded = 1 | 4;
  const sections = image.sections.filter(
    ({ type, flags, size }) =>
      type === sectionType.program && (flags & loaded) !== 0 && (flags & excluded) === 0 && size > 0,
  );
  const segments = image.segments
    .filter(({ type, flags }) => type === segmentType.load && (flags & segmentFlag.write) === 0)
    .map(({ offset, fileSize }) => ({ offset, size: fileSize }));
  const ranges = sections.length > 0 ? sections : segments;
  return { ranges, complete: ranges.reduce((sum, { size }) => sum + size, 0) <= searchMax };
}

/** The first of `needles` (in their order, not the file's) that the ranges hold. */
function search(image: ElfImage, ranges: readonly Range[], needles: readonly string[]): string | undefined {
  const overlap = Math.max(...needles.map((needle) => needle.length)) - 1;
  let best = needles.length;
  for (const { offset, size } of ranges) {
    for (const { bytes } of chunks(image.source, offset, size, overlap)) {
      for (let index = 0; index < best; index++) {
        if (bytes.includes(needles[index] ?? "", 0, "latin1")) best = index;
      }
      if (best === 0) return needles[0];
    }
  }
  return needles[best];
}
