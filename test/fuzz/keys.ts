/** TLS record protection by Node's OpenSSL, with the secret and without: the deltas are differences of two encryptions. */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import type { Seal, SealRequest } from "../wire/cipher.ts";
import * as rows from "../wire/rows.ts";

export const suites = {
  "1.3 aes-128-gcm": { tls12: false, algorithm: rows.algorithm.aes128, cipher: "aes-128-gcm", keyBytes: 16 },
  "1.3 aes-256-gcm": { tls12: false, algorithm: rows.algorithm.aes256, cipher: "aes-256-gcm", keyBytes: 32 },
  "1.3 chacha20-poly1305": {
    tls12: false,
    algorithm: rows.algorithm.chacha20,
    cipher: "chacha20-poly1305",
    keyBytes: 32,
  },
  "1.2 aes-128-gcm": { tls12: true, algorithm: rows.algorithm.aes128, cipher: "aes-128-gcm", keyBytes: 16 },
  "1.2 chacha20-poly1305": {
    tls12: true,
    algorithm: rows.algorithm.chacha20,
    cipher: "chacha20-poly1305",
    keyBytes: 32,
  },
} as const;
export type SuiteName = keyof typeof suites;
type Suite = (typeof suites)[SuiteName];

/** What a record says, as the workload wrote it and with the secret in it. In TLS 1.3 with the inner type. */
export interface Texts {
  readonly placeholder: Buffer;
  readonly secret: Buffer;
}

const tagBytes = 16;

/** One direction of one connection. */
export class TrafficKey {
  readonly #suite: Suite;
  readonly #key: Buffer;
  readonly #iv = randomBytes(12);
  #sequence = 0;
  /** By sequence number. */
  readonly texts: Texts[] = [];

  constructor(suite: Suite) {
    this.#suite = suite;
    this.#key = randomBytes(suite.keyBytes);
  }

  readonly seal: Seal = (request) => {
    const sequence = this.#sequence++;
    const texts = compose(request, this.#suite.tls12);
    this.texts.push(texts);
    const before = this.#encrypt(texts.placeholder, request, sequence);
    if (request.edits.length === 0) {
      return { ...before, delta: Buffer.alloc(request.length), tagDelta: Buffer.alloc(tagBytes) };
    }
    const after = this.#encrypt(texts.secret, request, sequence);
    return {
      ...before,
      delta: difference(before.ciphertext, after.ciphertext),
      tagDelta: difference(before.tag, after.tag),
    };
  };

  /** The text of the record of this number as it stands on the wire, or undefined if its tag is wrong. */
  open(record: Buffer, sequence: number): Buffer | undefined {
    const nonceBytes = this.#nonceBytes;
    const body = record.subarray(5 + nonceBytes, record.length - tagBytes);
    const nonce = this.#nonce(sequence, record.subarray(5, 5 + nonceBytes));
    const decipher = createDecipheriv(this.#suite.cipher as "aes-128-gcm", this.#key, nonce, {
      authTagLength: tagBytes,
    });
    decipher.setAAD(this.#aad(record[0] ?? 0, sequence, body.length), { plaintextLength: body.length });
    decipher.setAuthTag(record.subarray(record.length - tagBytes));
    const text = decipher.update(body);
    try {
      decipher.final();
    } catch {
      return undefined;
    }
    return text;
  }

  #encrypt(text: Buffer, { type, explicitNonce }: SealRequest, sequence: number): { ciphertext: Buffer; tag: Buffer } {
    const cipher = createCipheriv(
      this.#suite.cipher as "aes-128-gcm",
      this.#key,
      this.#nonce(sequence, explicitNonce),
      {
        authTagLength: tagBytes,
      },
    );
    cipher.setAAD(this.#aad(this.#suite.tls12 ? type : 23, sequence, text.length), { plaintextLength: text.length });
    const ciphertext = cipher.update(text);
    cipher.final();
    return { ciphertext, tag: cipher.getAuthTag() };
  }

  get #nonceBytes(): number {
    return this.#suite.tls12 && this.#suite.algorithm !== rows.algorithm.chacha20 ? 8 : 0;
  }

  /** RFC 5288 3; RFC 7905 2 and RFC 8446 5.3. */
  #nonce(sequence: number, explicit: Buffer): Buffer {
    if (explicit.length > 0) return Buffer.concat([this.#iv.subarray(0, 4), explicit]);
    const nonce = Buffer.from(this.#iv);
    nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ sequence) >>> 0, 8);
    return nonce;
  }

  /** RFC 5246 6.2.3.3; RFC 8446 5.2. */
  #aad(type: number, sequence: number, length: number): Buffer {
    const header = Buffer.from([type, 3, 3, 0, 0]);
    header.writeUInt16BE(this.#suite.tls12 ? length : length + tagBytes, 3);
    if (!this.#suite.tls12) return header;
    const number = Buffer.alloc(8);
    number.writeUInt32BE(sequence, 4);
    return Buffer.concat([number, header]);
  }
}

/** Letters; within the edits the secret's differ, but for a few that the two have in common by chance. */
function compose({ length, type, edits }: SealRequest, tls12: boolean): Texts {
  const placeholder = randomBytes(length);
  for (let i = 0; i < length; i++) placeholder[i] = 97 + ((placeholder[i] ?? 0) % 26);
  if (!tls12) placeholder[length - 1] = type;
  const secret = Buffer.from(placeholder);
  for (const { offset, length: bytes } of edits) {
    for (let i = offset; i < offset + bytes; i++) {
      if (i % 11 !== 5 || bytes === 1) secret[i] = 65 + ((secret[i] ?? 0) % 26);
    }
  }
  return { placeholder, secret };
}

function difference(a: Buffer, b: Buffer): Buffer {
  return Buffer.from(a.map((byte, i) => byte ^ (b[i] ?? 0)));
}
