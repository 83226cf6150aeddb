/**
 * What must hold for each connection, told from four views of it: what stood on the wire in the workload, what stood on
 * it behind the host's programs, what the server has read, and what the audit trail says.
 */
import type { AuditRecord } from "../../../src/audit/index.ts";
import { decryptClient } from "../../../src/demo/decrypt.ts";
import { disguises } from "../../../src/demo/memory.ts";
import type { ServedRequest } from "../../../src/lab/server.ts";
import { header, timesIn } from "../../support/requests.ts";
import { capturedSegments, SeenStream } from "./capture.ts";
import type { ConnectionPlan, RequestPlan, SecretName } from "./plan.ts";
import { firstPort } from "./plan.ts";

export interface Views {
  readonly plans: readonly ConnectionPlan[];
  readonly values: Readonly<Record<SecretName, string>>;
  readonly placeholders: Readonly<Record<SecretName, string>>;
  readonly results: readonly { readonly port: number; readonly done: number; readonly error: string | null }[];
  readonly served: readonly ServedRequest[];
  readonly audit: readonly AuditRecord[];
  /** Of the server about TLS and HTTP, and of kloak. */
  readonly complaints: readonly string[];
  /** Captures: before the host's programs, and behind them. */
  readonly front: Buffer;
  readonly wire: Buffer;
  /** The front capture may have holes. */
  readonly frontLost: boolean;
  readonly keyLog: ReadonlyMap<string, Buffer>;
  /** Ports of connections that were ended on the way. */
  readonly reset: ReadonlySet<number>;
}

export interface Problem {
  /** Undefined: of none in particular. */
  readonly index: number | undefined;
  readonly text: string;
}

export interface Tally {
  connections: number;
  reset: number;
  requests: number;
  substituted: number;
  inert: number;
  /** Records that were opened with the session's keys, on both sides. */
  opened: number;
  packets: number;
  bytes: number;
  /** Of them, that came more than once. */
  repeated: number;
  /** Connections whose capture in the workload has holes: of what was written there only that is compared which is there. */
  holes: number;
}

export function emptyTally(): Tally {
  return {
    connections: 0,
    reset: 0,
    requests: 0,
    substituted: 0,
    inert: 0,
    opened: 0,
    packets: 0,
    bytes: 0,
    repeated: 0,
    holes: 0,
  };
}

interface Streams {
  readonly front: SeenStream;
  readonly wire: SeenStream;
}

/** Adds to the tally, and returns what is wrong. */
export function check(views: Views, tally: Tally): Problem[] {
  const problems: Problem[] = [];
  const say = (index: number | undefined, text: string): void => void problems.push({ index, text });
  const front = watch(views.front, false, tally, say);
  const wire = watch(views.wire, true, tally, say);
  const substituted = { ALLOWED: 0, LONG: 0 };
  for (const plan of views.plans) {
    const port = firstPort + plan.index;
    const streams = { front: front.get(port), wire: wire.get(port) };
    tally.connections++;
    if (views.reset.has(port)) tally.reset++;
    const complain = (text: string): void => say(plan.index, text);
    if (streams.front && streams.wire) {
      checkStreams(plan, streams as Streams, views, tally, complain);
    } else {
      complain("the captures do not show it");
    }
    checkEnd(plan, views, complain);
    checkRequests(plan, views, tally, substituted, complain);
  }
  for (const complaint of new Set(views.complaints)) say(undefined, complaint);
  checkAudit(views, substituted, (text) => say(undefined, text));
  return problems;
}

/** The clients' streams of a capture, by port. behind: the host's programs, where every copy must be the same and right. */
function watch(
  pcap: Buffer,
  behind: boolean,
  tally: Tally,
  say: (index: number, text: string) => void,
): ReadonlyMap<number, SeenStream> {
  const streams = new Map<number, SeenStream>();
  const mine = (port: number): boolean => port >= firstPort && port < 32_768;
  for (const segment of capturedSegments(pcap)) {
    if (mine(segment.destinationPort)) {
      if (segment.ack && !segment.syn && !segment.rst)
        streams.get(segment.destinationPort)?.acknowledge(segment.acknowledgment);
      continue;
    }
    const { sourcePort: port } = segment;
    if (!mine(port)) continue;
    const index = port - firstPort;
    if (behind) {
      tally.packets++;
      tally.bytes += segment.payload.length;
      if (!segment.checksumsRight()) say(index, "a packet with a wrong checksum has left");
    }
    if (segment.syn && !streams.has(port)) streams.set(port, new SeenStream((segment.sequence + 1) >>> 0));
    const stream = streams.get(port);
    if (!stream || segment.payload.length === 0) continue;
    const before = stream.repeated;
    const different = stream.see(segment);
    if (behind) tally.repeated += stream.repeated - before;
    if (different !== undefined) {
      say(index, `byte ${different} of the stream stands in two versions ${behind ? "behind" : "before"} the host`);
    }
  }
  return streams;
}

/** What has become of the records, and that nothing else has changed. */
function checkStreams(
  plan: ConnectionPlan,
  { front, wire }: Streams,
  views: Views,
  tally: Tally,
  complain: (text: string) => void,
): void {
  const before = front.bytes;
  const after = wire.bytes;
  const wanted = plan.batches.flat().filter(isSubstituted).length;
  const finished = !views.reset.has(firstPort + plan.index);
  if (finished && !views.frontLost && before.length !== after.length)
    complain(`${before.length} bytes have been written, and ${after.length} have left`);
  let changed = 0;
  const whole = Math.min(before.length, after.length);
  for (let at = 0; at + 5 <= whole; ) {
    const end = at + 5 + before.readUInt16BE(at + 3);
    const to = Math.min(end, whole);
    if (!before.subarray(at, to).equals(after.subarray(at, to))) {
      changed++;
      if (before[at] !== 23) complain(`a record of type ${before[at]} has been changed`);
      if (!before.subarray(at, at + 5).equals(after.subarray(at, at + 5)))
        complain("a record's header has been changed");
      if (end <= whole && before.subarray(end - 16, end).equals(after.subarray(end - 16, end)))
        complain("a record has been changed, and its tag has not");
    }
    at = end;
  }
  if (changed > wanted || (finished && !views.frontLost && changed !== wanted))
    complain(`${changed} records have been changed, of ${wanted} that should be`);
  if (views.frontLost) tally.holes++;
  if (plan.listener !== "1.3 aes-256-gcm") return;
  const sides = [["behind", after, wanted] as const, ...(views.frontLost ? [] : [["before", before, 0] as const])];
  for (const [where, bytes, secrets] of sides) {
    const opened = decryptClient(bytes, views.keyLog);
    if (opened === null) {
      if (finished) complain(`what has left ${where} the host cannot be opened`);
      continue;
    }
    tally.opened += opened.records;
    if (opened.damaged > 0) complain(`${opened.damaged} records ${where} the host have a wrong tag`);
    const found = timesIn(opened.text, views.values.ALLOWED) + timesIn(opened.text, views.values.LONG);
    if (found > secrets || (finished && found !== secrets))
      complain(`${found} secrets ${where} the host instead of ${secrets}`);
  }
}

function isSubstituted({ where, secret }: RequestPlan): boolean {
  return where === "header" && secret !== null && secret !== "DENIED";
}

/** It has finished, or was ended by the way. */
function checkEnd(plan: ConnectionPlan, { results, reset }: Views, complain: (text: string) => void): void {
  const port = firstPort + plan.index;
  const result = results.find((other) => other.port === port);
  if (!result) complain("the client does not mention it");
  else if (!reset.has(port) && (result.error !== null || result.done !== plan.batches.flat().length))
    complain(`${result.done} answers, then ${result.error}`);
}

/** The server has got what the policy says, nothing twice, and of a finished connection everything. */
function checkRequests(
  plan: ConnectionPlan,
  views: Views,
  tally: Tally,
  substituted: Record<"ALLOWED" | "LONG", number>,
  complain: (text: string) => void,
): void {
  for (const request of plan.batches.flat()) {
    const arrived = views.served.filter(({ path }) => path === request.path);
    if (arrived.length > 1) complain(`${request.path} has arrived ${arrived.length} times`);
    const [got] = arrived;
    if (!got) {
      if (!views.reset.has(firstPort + plan.index)) complain(`${request.path} has not arrived`);
      continue;
    }
    tally.requests++;
    const { secret, where } = request;
    const placeholder = secret === null ? "" : views.placeholders[secret];
    let authorization = "";
    if (where === "header" && secret !== null) {
      authorization = `Bearer ${isSubstituted(request) ? views.values[secret] : placeholder}`;
      if (secret === "DENIED") tally.inert++;
      else {
        tally.substituted++;
        substituted[secret]++;
      }
    }
    if (header(got, "authorization") !== authorization) {
      const inert = header(got, "authorization").includes(placeholder);
      complain(`${request.path} has arrived with ${inert ? "the placeholder" : "something else"} in its header`);
    }
    const body = "0123456789abcdef".repeat(Math.ceil(request.body / 16)).slice(0, request.body);
    const expected = where === "body" ? body + placeholder : body;
    if (where === "body") tally.inert++;
    if (got.bodyLength !== expected.length || (got.body !== null && got.body !== expected))
      complain(`${request.path} has arrived with another body`);
  }
}

/** Nothing that the server has got is missing in the trail, and nothing was refused but what the policy refuses. */
function checkAudit(
  { audit, served, plans, reset, placeholders }: Views,
  substituted: Readonly<Record<"ALLOWED" | "LONG", number>>,
  complain: (text: string) => void,
): void {
  if (audit.some(({ outcome }) => outcome === "lost")) complain("the audit trail has holes");
  const counted = (outcome: string, reason: string | null, secret: string): number =>
    audit.filter((one) => one.outcome === outcome && one.reason === reason && one.secret === secret).length;
  const planned = (keep: (request: RequestPlan) => boolean): number =>
    plans.flatMap(({ batches }) => batches.flat()).filter(keep).length;
  const expected: [string, string | null, SecretName, number, number][] = [
    [
      "refused",
      "host-not-allowed",
      "DENIED",
      served.filter((request) => header(request, "authorization") === `Bearer ${placeholders.DENIED}`).length,
      planned(({ secret }) => secret === "DENIED"),
    ],
    [
      "refused",
      "slot-not-allowed",
      "ALLOWED",
      0 /* a body that does not begin in its header block's record is not read */,
      planned(({ where }) => where === "body"),
    ],
  ];
  for (const secret of ["ALLOWED", "LONG"] as const) {
    const most = planned((request) => isSubstituted(request) && request.secret === secret);
    expected.push(["substituted", null, secret, reset.size === 0 ? most : substituted[secret], most]);
  }
  let known = 0;
  for (const [outcome, reason, secret, least, most] of expected) {
    const found = counted(outcome, reason, secret);
    known += found;
    if (found < least || found > most)
      complain(`${found} records "${outcome} ${reason ?? ""} ${secret}", and ${least} to ${most} are due`);
  }
  if (known !== audit.length) {
    const others = audit.filter(
      (one) =>
        !expected.some(
          ([outcome, reason, secret]) => one.outcome === outcome && one.reason === reason && one.secret === secret,
        ),
    );
    const told = new Set(others.map(({ outcome, reason, secret }) => `${outcome} ${reason ?? ""} ${secret ?? ""}`));
    complain(`the trail has ${others.length} more records: ${[...told].join(", ")}`);
  }
}

/** In any disguise: nothing of the secrets stands in what a workload may see. */
export function secretsIn(bytes: Buffer, values: Readonly<Record<SecretName, string>>): string[] {
  return Object.entries(values).flatMap(([name, value]) =>
    disguises(value).some((needle) => bytes.includes(needle.bytes)) ? [name] : [],
  );
}
