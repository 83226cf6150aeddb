import { type Event, eventKind } from "../dataplane/types.gen.ts";
import { redactPlaceholders } from "../placeholder/redact.ts";
import { addressText, isMapped } from "../policy/address.ts";
import { type AttestMode, attestModes } from "../policy/policy.ts";
import {
  cipherName,
  encodingNames,
  protocolNames,
  type Reason,
  reasonName,
  slotNames,
  stackName,
  versionNames,
} from "./names.ts";

/** Who held the placeholder. */
export type Workload =
  | { readonly kind: "run"; readonly pid: number | null; readonly command: string | null }
  | {
      readonly kind: "pod";
      readonly namespace: string;
      readonly name: string;
      readonly uid: string;
      readonly container: string | null;
      readonly node: string;
    };

export interface Destination {
  readonly host: string | null;
  readonly address: string | null;
  readonly port: number | null;
  /** How the destination had proven who it is; of substitutions only. */
  readonly attestation: AttestMode | null;
}

/** One line of the audit trail. It holds no secret, no random part of a placeholder and no content of a request. */
export interface AuditRecord {
  /** RFC 3339, UTC, milliseconds. */
  readonly time: string;
  /** `lost`: the trail has a hole here, of `count` records. */
  readonly outcome: "substituted" | "refused" | "unprotected" | "lost";
  readonly reason: Reason | null;
  readonly secret: string | null;
  readonly workload: Workload | null;
  readonly destination: Destination;
  /** `header:authorization`, `query`, … */
  readonly slot: string | null;
  readonly encoding: string | null;
  readonly protocol: string | null;
  readonly tls: { readonly version: string | null; readonly cipher: string | null; readonly stack: string | null };
  /** Of `lost`. */
  readonly count?: number;
  /** Of `unprotected`: what could not be hooked, for a reader. */
  readonly detail?: string;
}

/** What user space knows and an event does not say. */
export interface RecordContext {
  /** `OPENAI_API_KEY`, or `namespace/name/key`; undefined if the number is not known any more. */
  secretName(secret: number): string | undefined;
  workload(id: number, process: { readonly pid: number; readonly command: string }): Workload | undefined;
  /** Of CLOCK_MONOTONIC nanoseconds. */
  wallTime(monotonic: bigint): Date;
}

/** The record of an event; undefined for the kinds that are no outcome. */
export function recordOf(event: Event, context: RecordContext): AuditRecord | undefined {
  const outcome = outcomeOf(event.kind);
  if (outcome === undefined) return undefined;
  const process = { pid: event.process, command: shown(event.command) };
  return {
    time: context.wallTime(event.timeNs).toISOString(),
    outcome,
    reason: outcome === "refused" ? reasonName(event.reason) : null,
    secret: event.secret === 0 ? null : (context.secretName(event.secret) ?? null),
    workload: context.workload(event.workload, process) ?? null,
    destination: destinationOf(event, outcome),
    slot: slotOf(event),
    encoding: event.secret === 0 ? null : (encodingNames[event.encoding] ?? null),
    protocol: protocolNames[event.protocol] ?? null,
    tls: {
      version: versionNames[event.version] ?? null,
      cipher: cipherName(event.algorithm),
      stack: stackName(event.stack),
    },
  };
}

/** A workload whose TLS code could not be hooked. @param detail what was found, and what to do */
export function unprotectedRecord(time: Date, workload: Workload, stack: string | null, detail: string): AuditRecord {
  const record = emptyRecord(time, "unprotected");
  return { ...record, workload, tls: { ...record.tls, stack }, detail: redactPlaceholders(detail) };
}

/** The kernel had no room to report `count` events, or the file none for as many records. */
export function lostRecord(time: Date, count: number): AuditRecord {
  return { ...emptyRecord(time, "lost"), count };
}

/** Turns CLOCK_MONOTONIC into wall time by the age of what is asked for, so that steps of the wall clock do not pile up. */
export function wallTime(monotonic: bigint): Date {
  const age = process.hrtime.bigint() - monotonic;
  return new Date(Date.now() - Number(age / 1_000_000n));
}

function emptyRecord(time: Date, outcome: AuditRecord["outcome"]): AuditRecord {
  return {
    time: time.toISOString(),
    outcome,
    reason: null,
    secret: null,
    workload: null,
    destination: { host: null, address: null, port: null, attestation: null },
    slot: null,
    encoding: null,
    protocol: null,
    tls: { version: null, cipher: null, stack: null },
  };
}

function outcomeOf(kind: number): "substituted" | "refused" | undefined {
  if (kind === eventKind.substituted) return "substituted";
  return kind === eventKind.refused ? "refused" : undefined;
}

function destinationOf(event: Event, outcome: "substituted" | "refused"): Destination {
  const known = event.address.some((byte) => byte !== 0);
  const host = shown(event.host).slice(0, event.hostLength);
  return {
    host: host === "" ? null : host,
    address: known ? destinationAddress(event) : null,
    port: event.port === 0 ? null : event.port,
    attestation: outcome === "substituted" ? (attestModes[event.attest] ?? null) : null,
  };
}

/** An IPv4-mapped address that a packet of IPv6 carried is not the IPv4 address. */
function destinationAddress({ address, ipv4 }: Event): string {
  const text = addressText(address);
  return ipv4 === 0 && isMapped(address) ? `::ffff:${text}` : text;
}

function slotOf({ slot, header }: Event): string | null {
  const kind = slotNames[slot];
  if (kind !== "header" || header.length === 0) return kind ?? null;
  return `header:${shown(header.text).slice(0, header.length)}`;
}

/** Text that a workload chose: up to its first NUL, printable, without the random part of a placeholder. */
function shown(text: string): string {
  const end = text.indexOf("\0");
  const printable = (end === -1 ? text : text.slice(0, end)).replace(/[^\x20-\x7e]/g, "?");
  return redactPlaceholders(printable);
}
