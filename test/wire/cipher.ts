/**
 * Plays the cipher side: seals records that look like ciphertext, and publishes about them what the uprobes would. No
 * AES is needed, because the wire side computes none: to it a record is bytes with a hash, a patch is bytes to XOR. Who
 * wants to decrypt what arrives gives another `Seal`.
 */
import { randomBytes } from "node:crypto";
import { record } from "./client-hello.ts";
import type { Kernel } from "./kernel.ts";
import type { Edit } from "./rows.ts";
import * as rows from "./rows.ts";

export interface SealOptions {
  /** Of the ciphertext, without explicit nonce and tag. */
  readonly length?: number;
  /** Inner content type. */
  readonly type?: number;
  readonly edits?: readonly Edit[];
  /** A patch that says only why not. */
  readonly reason?: number;
  readonly flags?: number;
  /** Host of the request. */
  readonly host?: string;
  readonly regionBytes?: number;
  readonly headBlocks?: number;
  readonly ageNs?: bigint;
  readonly protocol?: number;
  /** 1: the server keeps an edit in its header table. */
  readonly keeps?: number;
  /** Says nothing about this record: the attacker's own code has sealed it. */
  readonly unheard?: boolean;
  /** Says that the patch was made in this workload. */
  readonly patchWorkload?: number;
}

export interface Sealed {
  readonly index: number;
  /** As the workload sends it. */
  readonly sent: Buffer;
  /** As the server must get it if the patch is applied. */
  readonly patched: Buffer;
  /** Bytes of the record before its ciphertext. */
  readonly start: number;
}

/** What a record's encryption gives. */
export interface Sealing {
  readonly ciphertext: Buffer;
  readonly tag: Buffer;
  /** What to XOR to both, so that they become the ciphertext and tag of the text with the secret in it. */
  readonly delta: Buffer;
  readonly tagDelta: Buffer;
}

export interface SealRequest {
  /** Of the ciphertext. */
  readonly length: number;
  /** Inner content type. */
  readonly type: number;
  readonly edits: readonly Edit[];
  readonly explicitNonce: Buffer;
}

export type Seal = (request: SealRequest) => Sealing;

const sealAtRandom: Seal = ({ length, edits }) => {
  const delta = Buffer.alloc(length);
  for (const { offset, length: bytes } of edits) {
    for (let i = offset; i < offset + bytes; i++) delta[i] = 1 + Math.floor(Math.random() * 255);
  }
  const tagDelta = edits.length > 0 ? randomBytes(16) : Buffer.alloc(16);
  return { ciphertext: randomBytes(length), tag: randomBytes(16), delta, tagDelta };
};

let serials = 1n; /* given out as the kernel does: never twice */

export function monotonicNs(): bigint {
  return process.hrtime.bigint();
}

export class Cipher {
  readonly serial: bigint = serials++;
  readonly id: Buffer = randomBytes(16);
  /** What has been said about its records beside the key. */
  readonly published: { readonly table: string; readonly key: Buffer }[] = [];
  readonly #kernel: Kernel;
  readonly #workload: number;
  readonly #version: number;
  readonly #algorithm: number;
  readonly #state: rows.KeyState;
  readonly #seal: Seal;
  #index = 0;

  constructor(
    kernel: Kernel,
    workload: number,
    version: number,
    algorithm: number = rows.algorithm.aes128,
    seal: Seal = sealAtRandom,
  ) {
    this.#seal = seal;
    this.#kernel = kernel;
    this.#workload = workload;
    this.#version = version;
    this.#algorithm = algorithm;
    this.#state = new rows.KeyState(kernel.table("keys").valueBytes, this.serial, algorithm, version);
    this.#publishKey();
  }

  get name(): Buffer {
    return rows.keyName(this.#workload, this.id);
  }

  seal(options: SealOptions = {}): Sealed {
    const { length = 120, type = 23, edits = [], reason, unheard = false } = options;
    const nonceBytes = this.#version === rows.version.tls12 && this.#algorithm !== rows.algorithm.chacha20 ? 8 : 0;
    const nonce = randomBytes(nonceBytes);
    const { ciphertext, tag, delta, tagDelta } = this.#seal({ length, type, edits, explicitNonce: nonce });
    const sent = record(this.#version === rows.version.tls13 ? 23 : type, Buffer.concat([nonce, ciphertext, tag]));
    const start = 5 + nonceBytes;
    if (unheard) return { index: -1, sent, patched: sent, start };

    const index = this.#index++;
    const region = options.regionBytes ?? edits.reduce((end, edit) => Math.max(end, edit.offset + edit.length), 16);
    const hasPatch = edits.length > 0 || reason !== undefined;
    const sealedNs = monotonicNs() - (options.ageNs ?? 0n);
    const fingerprint = Buffer.concat([ciphertext, tag]).subarray(0, 16);
    if (hasPatch) this.#publishPatch(index, options, ciphertext, delta, tagDelta, fingerprint, region, sealedNs);
    const flags = (options.flags ?? 0) | (hasPatch ? rows.markFlag.hasPatch : 0);
    const headBlocks = options.headBlocks ?? Math.max(1, Math.ceil(Math.min(region, length) / 16));
    this.#state.mark(index, this.#mark(index, ciphertext, headBlocks, type, flags));
    this.#publishKey();
    if (hasPatch || index === 0) {
      this.#publish("fingerprints", fingerprint, rows.sighting(this.name, this.serial, index, sealedNs));
    }
    const patched = Buffer.from(sent);
    delta.forEach((byte, i) => {
      patched[start + i] = (patched[start + i] ?? 0) ^ byte;
    });
    tagDelta.forEach((byte, i) => {
      patched[start + length + i] = (patched[start + length + i] ?? 0) ^ byte;
    });
    return { index, sent, patched, start };
  }

  #publishPatch(
    index: number,
    options: SealOptions,
    ciphertext: Buffer,
    delta: Buffer,
    tagDelta: Buffer,
    fingerprint: Buffer,
    region: number,
    sealedNs: bigint,
  ): void {
    for (let at = 0, chunk = 0; at < region; at += 256, chunk++) {
      const end = Math.min(at + 256, region);
      const row = rows.regionChunk(this.#workload, ciphertext.subarray(at, end), delta.subarray(at, at + 256));
      this.#publish("region_chunks", rows.patchKey(this.serial, index, chunk), row);
    }
    this.#publish(
      "patches",
      rows.patchKey(this.serial, index),
      rows.patch(
        {
          host: options.host === undefined ? 0n : this.#kernel.hash(options.host),
          sealedNs,
          workload: options.patchWorkload ?? this.#workload,
          tagDelta,
          fingerprint,
          length: ciphertext.length,
          regionBytes: region,
          algorithm: this.#algorithm,
          version: this.#version,
          protocol: options.protocol ?? rows.protocol.http1,
          reason: options.reason ?? rows.reason.none,
          keeps: options.keeps ?? 0,
        },
        options.edits ?? [],
      ),
    );
  }

  #mark(index: number, ciphertext: Buffer, headBlocks: number, type: number, flags: number): Buffer {
    const blocks = Math.ceil(ciphertext.length / 16);
    const tailBlock = blocks - 1;
    const padded = Buffer.alloc(blocks * 16);
    padded.set(ciphertext);
    const last = Buffer.alloc(16);
    [ciphertext.length, index, headBlocks, tailBlock].forEach((word, i) => last.writeUInt32LE(word, i * 4));
    const tail = padded.subarray(Math.max(tailBlock, headBlocks) * 16);
    const mac = this.#kernel.hash(Buffer.concat([padded.subarray(0, headBlocks * 16), tail, last]));
    return rows.recordMark({ mac, index, length: ciphertext.length, headBlocks, tailBlock, type, flags });
  }

  #publish(table: string, key: Buffer, value: Buffer): void {
    this.#kernel.table(table).set(key, value);
    this.published.push({ table, key });
  }

  #publishKey(): void {
    this.#kernel.table("keys").set(this.name, this.#state.bytes);
  }
}
