/*
 * `kloak demo`: tells on this machine what Kloak does, and checks every sentence of it while it speaks. Status 0 only
 * if all that was claimed held.
 */
import { randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { KloakError } from "../errors.ts";
import { createNamespace } from "../lab/namespace.ts";
import type { ServedRequest } from "../lab/server.ts";
import { clientStreams } from "./capture.ts";
import { type Decrypted, decryptClient, parseKeyLog } from "./decrypt.ts";
import { disguises, processesWith, type Scan, scanMemory } from "./memory.ts";
import { provide } from "./requirements.ts";
import { clients, host, otherHost, Stage, type Started } from "./stage.ts";
import { Story } from "./story.ts";

const programs = 3;
const requestsEach = 21;
const holdDeadlineMs = 60_000;

/** Returns the exit status. */
export async function runDemo(out: NodeJS.WriteStream = process.stdout): Promise<number> {
  if (process.getuid?.() !== 0) {
    throw new KloakError(
      "demo-needs-root",
      "The demo makes a network namespace and loads BPF programs: run it as root (sudo).",
    );
  }
  const story = new Story(out, process.env);
  story.title("Kloak: the application never holds the key, the server gets it all the same");
  await provide((line) => story.say(line));
  const started = performance.now();
  const stage = await Stage.build();
  try {
    await tell(story, stage);
  } finally {
    await stage.close();
  }
  story.end((performance.now() - started) / 1000);
  return story.broken.length === 0 ? 0 : 1;
}

async function tell(story: Story, stage: Stage): Promise<void> {
  const key = newKey();
  const marker = `KLOAK_DEMO=${process.pid}-${randomInt(1e9)}`;

  story.chapter("The stage");
  story.say(
    `Another machine (a network namespace at ${stage.address}) serves https://${host} and https://${otherHost}, with` +
      " certificates from an authority of its own. The key below is for the first alone. curl, Python and Node run under" +
      " `kloak run`; nobody told them of Kloak.",
  );
  story.show([
    ["key", key],
    ["allowed host", host],
    ["command", `kloak run --secret API_KEY@${host} -- curl | python3 | node`],
  ]);

  const endCapture = await stage.capture("outside.pcap");
  const command = ["env", marker, "sh", `${clients}/inside.sh`, stage.directory, clients, stage.caFile];
  const rest = [host, otherHost, String(stage.port), stage.address, process.execPath];
  const session = stage.kloak(key, [...command, ...rest], "audit.jsonl");
  await Promise.race([stage.server.held(programs, holdDeadlineMs), failure(session)]);

  const held = look(marker, key);
  stage.server.release();
  await session.output;
  const outside = await endCapture();
  const { requests, faults } = await stage.server.take();
  const keyLogs = ["other", "curl", "python", "node"].map((name) => readFileSync(stage.file(`keys.${name}`), "utf8"));
  const read = (pcap: Buffer) => readCapture(pcap, stage.port, keyLogs.join("\n"));

  tellOfProcesses(story, held, key);
  tellOfServer(story, requests, faults, key);
  tellOfCaptures(story, read(readFileSync(stage.file("inside.pcap"))), read(outside), key);
  tellOfMemory(story, held);
  tellOfWrongHost(story, requests, stage, key);
  await tellOfLatency(story, stage, key);
}

interface Held {
  readonly name: string;
  readonly pid: number;
  readonly placeholder: string;
  readonly mentionsKey: boolean;
  readonly scan: Scan;
}

/** Looks at the clients while each waits for an answer. */
function look(marker: string, key: string): Held[] {
  const held: Held[] = [];
  for (const { pid, name, environment } of processesWith(marker)) {
    const variable = environment.find((line) => line.startsWith("API_KEY="));
    if (variable === undefined) continue; // kloak itself, outside
    const placeholder = variable.slice("API_KEY=".length);
    const said = `${environment.join("\n")}\n${readFileSync(`/proc/${pid}/cmdline`, "utf8")}`;
    const needles = [...disguises(key), { name: "placeholder", bytes: Buffer.from(placeholder) }];
    held.push({ name, pid, placeholder, mentionsKey: said.includes(key), scan: scanMemory(pid, needles) });
  }
  return held;
}

function tellOfProcesses(story: Story, held: readonly Held[], key: string): void {
  story.chapter("What the processes hold");
  const talking = held.filter(({ name }) => /^(curl|python|node)/.test(name));
  story.show(talking.map(({ name, pid, placeholder }) => [`${name} (${pid})`, `API_KEY=${placeholder}`]));
  story.claim(
    "three clients run, each with a placeholder as long as the key",
    talking.length === programs &&
      held.every(({ placeholder }) => placeholder.includes("kloak:") && placeholder.length === key.length),
  );
  story.claim(
    `no environment and no argument of ${held.length} processes holds the key`,
    held.length > 0 && !held.some(({ mentionsKey }) => mentionsKey),
  );
}

function tellOfServer(story: Story, requests: readonly ServedRequest[], faults: readonly string[], key: string): void {
  story.chapter("What the server received");
  const allowed = requests.filter(({ serverName }) => serverName === host);
  const keyed = allowed.filter((request) => authorization(request) === `Bearer ${key}`);
  const [first] = keyed;
  if (first) story.show([[`${first.method} ${first.path}`, `Authorization: ${authorization(first)}`]]);
  const wanted = programs * requestsEach;
  story.claim(
    `all ${wanted} requests to ${host} carried the key`,
    keyed.length === wanted && allowed.length === wanted,
  );
  story.claim(
    "over ordinary TLS 1.3, without one record that failed its check",
    faults.length === 0 && allowed.every(({ version }) => version === "TLSv1.3"),
    faults.join("; "),
  );
}

function tellOfCaptures(story: Story, inside: readonly Decrypted[], outside: readonly Decrypted[], key: string): void {
  story.chapter("What a capture shows");
  story.say(
    "tcpdump ran inside the clients' own network namespace, and on the other machine. The clients gave away their session" +
      " keys (SSLKEYLOGFILE), so both captures can be decrypted: the same connections, before and after the host's end of the wire.",
  );
  const total = (decrypted: readonly Decrypted[], text: string) =>
    decrypted.reduce((sum, { text: all }) => sum + all.split(text).length - 1, 0);
  const records = (decrypted: readonly Decrypted[]) => decrypted.reduce((sum, { records: count }) => sum + count, 0);
  const damaged = [...inside, ...outside].reduce((sum, { damaged: count }) => sum + count, 0);
  const row = (decrypted: readonly Decrypted[]) =>
    `${records(decrypted)} records: placeholder ${total(decrypted, "kloak:")} times, key ${total(decrypted, key)} times`;
  story.show([
    ["inside", row(inside)],
    ["at the server", row(outside)],
  ]);
  const wanted = programs * requestsEach;
  story.claim(
    "inside, the key is in no record",
    inside.length === programs + 1 && total(inside, key) === 0 && total(inside, "kloak:") === wanted + 1,
  );
  story.claim(
    "at the server the very same records hold the key",
    total(outside, key) === wanted && records(inside) === records(outside),
  );
  story.claim("every record decrypts, so the server can tell no difference", damaged === 0);
}

function tellOfMemory(story: Story, held: readonly Held[]): void {
  story.chapter("What their memory holds");
  story.say(
    "While each client waited for its last answer, all its readable memory was searched for the key: as it is, as UTF-16," +
      " in hexadecimal, and in base64 at each alignment.",
  );
  const findings = held.map(({ name, pid, scan }) => {
    const { placeholder = 0, ...key } = scan.found;
    const hits = Object.values(key).reduce((sum, count) => sum + count, 0);
    return { name, pid, scan, placeholder, hits };
  });
  story.show(
    findings.map(({ name, pid, scan, placeholder, hits }) => [
      `${name} (${pid})`,
      `${(scan.bytes / 1e6).toFixed(0)} MB in ${scan.mappings} mappings: key ${hits} times, placeholder ${placeholder} times`,
    ]),
  );
  story.claim(
    "the search works: it finds the placeholder in each process",
    findings.length >= programs && findings.every(({ placeholder }) => placeholder > 0),
  );
  story.claim(
    "it finds the key in none, in no form",
    findings.every(({ hits }) => hits === 0),
  );
}

function tellOfWrongHost(story: Story, requests: readonly ServedRequest[], stage: Stage, key: string): void {
  story.chapter("The wrong host");
  const audit = stage.audit("audit.jsonl");
  const refused = audit.filter(({ outcome }) => outcome === "refused");
  const other = requests.filter(({ serverName }) => serverName === otherHost);
  story.say(
    `The same curl with the same header also asked https://${otherHost}, which the key is not for. It received:`,
  );
  story.show([["Authorization", other.map(authorization).join(", ")]]);
  story.claim(
    `${otherHost} received the placeholder only`,
    other.length === 1 && other.every((request) => authorization(request).startsWith("Bearer kloak:")),
  );
  story.say("and the audit trail says:");
  story.show(
    refused.map(({ outcome, reason, secret, destination }) => [
      outcome,
      `${reason}: ${secret} to ${destination.host} (${destination.address}:${destination.port})`,
    ]),
  );
  story.claim(
    "one refusal, for its host",
    refused.length === 1 && refused[0]?.reason === "host-not-allowed" && refused[0].destination.host === otherHost,
  );
  const substituted = audit.filter(({ outcome }) => outcome === "substituted").length;
  story.claim(
    `each of the ${programs * requestsEach} substitutions has its record`,
    substituted === programs * requestsEach,
  );
  const trail = readFileSync(stage.file("audit.jsonl"), "utf8");
  story.claim("no record holds the key or a placeholder", !trail.includes(key) && !trail.includes("kloak:"));
}

async function tellOfLatency(story: Story, stage: Stage, key: string): Promise<void> {
  story.chapter("What it costs");
  const rounds = 3;
  const times = { bare: [] as number[], kloak: [] as number[] };
  const namespace = createNamespace();
  try {
    const command = ["python3", `${clients}/latency.py`, stage.caFile, host, String(stage.port), "1500"];
    for (let round = 0; round < rounds; round += 1) {
      times.bare.push(Number(await stage.bare(key, command, namespace).output));
      times.kloak.push(Number(await stage.kloak(key, command, "latency.jsonl").output));
    }
  } finally {
    namespace.close();
  }
  const { requests } = await stage.server.take();
  const median = (values: readonly number[]) =>
    values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
  const [bare, kloak] = [median(times.bare), median(times.kloak)];
  story.say(
    "A keep-alive request from Python and its answer, median; bare and under Kloak in turn (npm run bench measures closely):",
  );
  story.show([
    ["bare", `${bare.toFixed(1)} us`],
    ["with Kloak", `${kloak.toFixed(1)} us (${kloak >= bare ? "+" : ""}${(kloak - bare).toFixed(1)} us)`],
  ]);
  const all = rounds * 2 * 1875;
  story.claim(
    `all ${all} requests carried the key`,
    requests.length === all && requests.every((request) => authorization(request) === `Bearer ${key}`),
  );
}

function readCapture(pcap: Buffer, port: number, keyLog: string): Decrypted[] {
  const keys = parseKeyLog(keyLog);
  return clientStreams(pcap, port).flatMap((stream) => decryptClient(stream, keys) ?? []);
}

function authorization(request: ServedRequest): string {
  return request.headers.find(([name]) => name.toLowerCase() === "authorization")?.[1] ?? "";
}

/** In the shape of a payment provider's live key. */
function newKey(): string {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  return `sk_live_${Array.from({ length: 43 }, () => letters[randomInt(letters.length)]).join("")}`;
}

/** Rejects when the command fails; never resolves. */
async function failure(started: Started): Promise<never> {
  await started.output;
  throw new KloakError("demo-ended-early", "The clients of the demo ended before they had sent all their requests.");
}
