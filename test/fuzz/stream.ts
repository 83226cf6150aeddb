/** What one workload writes on one connection: its handshake and its records, really encrypted, heard by the kernel or not. */
import { randomBytes } from "node:crypto";
import { Cipher } from "../wire/cipher.ts";
import * as tls from "../wire/client-hello.ts";
import { host, type Lab, secret, workload } from "../wire/lab.ts";
import * as rows from "../wire/rows.ts";
import { suites, TrafficKey } from "./keys.ts";
import type { ModelRecord, ModelStream } from "./model.ts";
import type { Protected } from "./oracle.ts";
import type { ConnectionSpec, RecordSpec } from "./spec.ts";

export interface Stream extends ModelStream {
  /** The encrypted ones, in their order. */
  readonly protected: readonly Protected[];
  /** Where the model has to give up: from here on the cipher side has lied. */
  readonly honestUntil: number;
  readonly ciphers: readonly Cipher[];
}

/** Where edits begin at the earliest, as in a request whose placeholder follows at least "GET / HTTP/1.1". */
const earliest = 4;
const otherHost = "other.example.com";

/** Seals all of it, so that it is known before the first byte leaves. */
export function makeStream(lab: Lab, spec: ConnectionSpec): Stream {
  const suite = suites[spec.suite];
  const version = suite.tls12 ? rows.version.tls12 : rows.version.tls13;
  const sent: Buffer[] = [];
  const patched: Buffer[] = [];
  const records: ModelRecord[] = [];
  const encrypted: Protected[] = [];
  const ciphers: Cipher[] = [];
  let [end, honestUntil] = [0, Number.POSITIVE_INFINITY];
  let [cipher, key, number] = [undefined as Cipher | undefined, new TrafficKey(suite), -1];

  const write = (before: Buffer, after: Buffer, record: Partial<ModelRecord>): void => {
    const start = end;
    end += before.length;
    sent.push(before);
    patched.push(after);
    const nothing = {
      prefix: 0,
      kind: "clear",
      heard: false,
      key: -1,
      index: -1,
      handshake: false,
      mayRekey: false,
      edits: [],
    } as const;
    records.push({ ...nothing, ...record, start, end });
  };
  const rekey = (): Cipher => {
    key = new TrafficKey(suite);
    cipher = new Cipher(lab.kernel, workload, version, suite.algorithm, key.seal);
    ciphers.push(cipher);
    number++;
    return cipher;
  };
  const seal = (kind: "data" | "finished", options: Parameters<Cipher["seal"]>[0], more: Partial<ModelRecord> = {}) => {
    const sequence = key.texts.length;
    const sealed = (cipher ?? rekey()).seal(options);
    encrypted.push({ start: end, end: end + sealed.sent.length, key, sequence, forged: end === honestUntil });
    const heard = sealed.index >= 0;
    write(sealed.sent, sealed.patched, {
      kind,
      heard,
      key: number,
      index: sealed.index,
      prefix: sealed.start - 5,
      ...more,
    });
    return sealed;
  };

  const hello = tls.clientHello([tls.serverName(host), ...(suite.tls12 ? [] : [tls.supportedVersions])]);
  const clear = (bytes: Buffer): void => write(bytes, bytes, {});
  clear(tls.record(22, hello));
  if (suite.tls12) clear(tls.record(22, tls.handshake(16, Buffer.alloc(66, 1))));
  clear(tls.changeCipherSpec);
  rekey();
  if (suite.tls12) seal("data", { type: 22, length: 16 });
  else {
    seal("finished", { type: 22, length: 53 });
    rekey();
  }
  let length = 0;
  spec.records.forEach((record, i) => {
    const next = spec.records.slice(i + 1).find(({ kind }) => kind !== "unheard" && kind !== "garbage");
    /* Of the same length it would be taken for the next one heard, until its hash is complete. */
    length = record.length + (record.kind === "unheard" && record.length === next?.length ? 1 : 0);
    if (!suite.tls12) length = Math.max(2, length);
    if (record.kind === "garbage") {
      const bytes = Buffer.concat([Buffer.from([99]), randomBytes(record.length + 4)]);
      write(bytes, bytes, { kind: "garbage" });
    } else if (record.kind === "unheard") seal("data", { length, unheard: true });
    else if (record.kind === "rekey" || record.kind === "rekey-amid") {
      if (suite.tls12) return;
      const mayRekey = record.kind === "rekey";
      seal(
        "data",
        { length: 6, type: 22, flags: mayRekey ? rows.markFlag.idleAfter : 0 },
        {
          handshake: true,
          mayRekey,
        },
      );
      rekey();
    } else request(record);
  });

  function request(record: RecordSpec): void {
    const edits = record.kind === "body" ? [] : place(record, length - (suite.tls12 ? 0 : 1));
    if (edits.length === 0) {
      seal("data", { length });
      return;
    }
    const regionBytes = edits.reduce((to, edit) => Math.max(to, edit.offset + edit.length), 0);
    const places = edits.map(({ offset }) => ({ offset, proof: record.proof }));
    if (record.kind === "forged") {
      if (honestUntil < end) return; /* one lie is enough */
      honestUntil = end;
      const start = end;
      seal("data", { length, edits, host, regionBytes }, { edits: places });
      /* Both versions alike: what the cipher side has computed, and what the workload makes of it. */
      const at = 5 + Math.floor(record.size * (end - start - 6));
      for (const bytes of [sent.at(-1), patched.at(-1)]) if (bytes) bytes[at] = (bytes[at] ?? 0) ^ 0x40;
    } else if (record.kind === "request") {
      seal("data", { length, edits, host, regionBytes }, { edits: places });
    } else if (record.edits % 2) {
      seal("data", { length, edits, host: otherHost, regionBytes }, { edits: places, refusal: "host-not-allowed" });
    } else {
      seal("data", { length, reason: rows.reason.slotNotAllowed, regionBytes: 0 }, { refusal: "slot-not-allowed" });
    }
  }

  return {
    sent: Buffer.concat(sent),
    patched: Buffer.concat(patched),
    records,
    protected: encrypted,
    tls12: suite.tls12,
    honestUntil,
    ciphers,
  };
}

const proofs = { flow: rows.proof.flow, record: rows.proof.record, none: rows.proof.none } as const;

/** Up to `record.edits` placeholders, in order, in `bytes` of text. */
function place(record: RecordSpec, bytes: number): rows.Edit[] {
  const edits: rows.Edit[] = [];
  let at = earliest + Math.floor(record.offset * Math.max(0, bytes - earliest - 1));
  while (edits.length < record.edits && at < bytes) {
    const length = 1 + Math.floor(record.size * Math.min(300, bytes - at - 1));
    edits.push({ secret, offset: at, length, proof: proofs[record.proof] });
    at += length + 1 + Math.floor(record.offset * 40);
  }
  return edits;
}
