/* Decrypts what a TLS 1.3 client sent, with the secrets that it wrote to its SSLKEYLOGFILE (RFC 9850). */
import { createDecipheriv, createHmac } from "node:crypto";

/** The one suite of the demo's server: TLS_AES_256_GCM_SHA384. */
const hash = "sha384";
const keyBytes = 32;
const tagBytes = 16;

const handshakeRecord = 22;
const applicationDataRecord = 23;

/** Secrets by label and client random, both as in the file. */
export function parseKeyLog(text: string): ReadonlyMap<string, Buffer> {
  const secrets = new Map<string, Buffer>();
  for (const line of text.split("\n")) {
    const [label, random, secret] = line.trim().split(" ");
    if (label && random && secret) secrets.set(`${label} ${random}`, Buffer.from(secret, "hex"));
  }
  return secrets;
}

export interface Decrypted {
  /** Application data, in order. */
  readonly text: string;
  readonly records: number;
  /** Records whose authentication tag is wrong under the client's key. */
  readonly damaged: number;
}

/** Null if the stream does not start with a ClientHello whose secrets are known. */
export function decryptClient(stream: Buffer, keyLog: ReadonlyMap<string, Buffer>): Decrypted | null {
  const records = [...readRecords(stream)];
  const hello = records[0];
  if (hello?.type !== handshakeRecord) return null;
  const random = hello.body.subarray(6, 38).toString("hex"); // after type, length (3) and version (2)
  const handshake = keyLog.get(`CLIENT_HANDSHAKE_TRAFFIC_SECRET ${random}`);
  const traffic = keyLog.get(`CLIENT_TRAFFIC_SECRET_0 ${random}`);
  if (handshake === undefined || traffic === undefined) return null;

  const sealed = records.filter(({ type }) => type === applicationDataRecord);
  const [finished, ...data] = sealed;
  if (finished === undefined || open(finished, handshake, 0) === null) return null;
  const opened = data.map((record, index) => open(record, traffic, index));
  const texts = opened
    .filter((plain) => plain?.type === applicationDataRecord)
    .map((plain) => plain?.content.toString("latin1"));
  return { text: texts.join(""), records: texts.length, damaged: opened.filter((plain) => plain === null).length };
}

interface TlsRecord {
  readonly type: number;
  readonly header: Buffer;
  readonly body: Buffer;
}

function* readRecords(stream: Buffer): Generator<TlsRecord> {
  for (let at = 0; at + 5 <= stream.length; ) {
    const end = at + 5 + stream.readUInt16BE(at + 3);
    if (end > stream.length) return;
    yield { type: stream.readUInt8(at), header: stream.subarray(at, at + 5), body: stream.subarray(at + 5, end) };
    at = end;
  }
}

/** RFC 8446 5.2 and 5.3. Null if the tag is wrong. */
function open({ header, body }: TlsRecord, secret: Buffer, index: number): { type: number; content: Buffer } | null {
  const nonce = expandLabel(secret, "iv", 12);
  nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ index) >>> 0, 8);
  const decipher = createDecipheriv("aes-256-gcm", expandLabel(secret, "key", keyBytes), nonce);
  decipher.setAAD(header);
  decipher.setAuthTag(body.subarray(-tagBytes));
  const plain = decipher.update(body.subarray(0, -tagBytes));
  try {
    decipher.final();
  } catch {
    return null;
  }
  const last = plain.findLastIndex((byte) => byte !== 0); // padding follows the inner type
  return { type: plain[last] ?? 0, content: plain.subarray(0, Math.max(last, 0)) };
}

/** HKDF-Expand-Label with no context (RFC 8446 7.1), for lengths up to one hash. */
function expandLabel(secret: Buffer, label: string, length: number): Buffer {
  const name = Buffer.from(`tls13 ${label}`);
  const info = Buffer.concat([Buffer.from([0, length, name.length]), name, Buffer.from([0, 1])]);
  return createHmac(hash, secret).update(info).digest().subarray(0, length);
}
