/*
 * The control socket: a line of JSON for each request, a line for each answer. It is a source of workloads for one host,
 * and the way in which a newer agent asks an older one to leave.
 */
import { once } from "node:events";
import { chmodSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { createInterface } from "node:readline";
import * as v from "valibot";
import { KloakError } from "../errors.ts";
import { makePlaceholder, SecretValue } from "../placeholder/index.ts";
import { parseSlots, isPercentEncoded } from "../policy/slots.ts";
import type { WorkloadSink, WorkloadSource } from "./source.ts";

const list = v.optional(v.union([v.string(), v.array(v.string())]));
const settings = v.strictObject({
  hosts: list,
  ports: v.optional(v.union([v.string(), v.number(), v.array(v.union([v.string(), v.number()]))])),
  in: list,
  attest: v.optional(v.string()),
  proof: v.optional(v.string()),
  prefix: v.optional(v.string()),
});
const requestSchema = v.variant("do", [
  v.strictObject({
    do: v.literal("add-workload"),
    id: v.string(),
    netns: v.string(),
    interface: v.string(),
    process: v.optional(v.pipe(v.number(), v.integer())),
    command: v.optional(v.string()),
  }),
  v.strictObject({ do: v.literal("remove-workload"), id: v.string() }),
  v.strictObject({
    do: v.literal("bind"),
    name: v.string(),
    value: v.string(),
    placeholder: v.optional(v.string()),
    workloads: v.array(v.string()),
    ca: v.optional(v.array(v.string())),
    ...settings.entries,
  }),
  v.strictObject({ do: v.literal("unbind"), name: v.string() }),
  v.strictObject({ do: v.literal("status") }),
  v.strictObject({ do: v.literal("hand-over") }),
]);

export type ControlRequest = v.InferInput<typeof requestSchema>;
export type ControlAnswer =
  | { readonly ok: true; readonly [key: string]: unknown }
  | { readonly error: string; readonly code: string };

/** A line that is longer is no request. Values have up to 4 KiB, roots some more. */
const lineMax = 1 << 20;

export interface ControlOptions {
  readonly path: string;
  readonly status: () => Record<string, unknown>;
  /** Another agent takes over; resolves when everything that is ours has been let go. */
  readonly handOver: () => Promise<void>;
}

export class Control implements WorkloadSource {
  readonly #options: ControlOptions;
  #sink: WorkloadSink | undefined;

  constructor(options: ControlOptions) {
    this.#options = options;
  }

  async run(sink: WorkloadSink, signal: AbortSignal): Promise<void> {
    this.#sink = sink;
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
      socket.on("error", () => undefined);
      void this.#serve(socket);
    });
    const { path } = this.#options;
    rmSync(path, { force: true }); // of an agent that died; who listens here has the lock
    await listen(server, path);
    chmodSync(path, 0o600);
    if (!signal.aborted) await once(signal, "abort");
    for (const socket of sockets) socket.destroy();
    server.close();
  }

  async #serve(socket: Socket): Promise<void> {
    const lines = createInterface({ input: socket, crlfDelay: Infinity });
    lines.on("error", () => undefined);
    for await (const line of lines) {
      const answer = line.length > lineMax ? refusal("request-long", "the line is too long") : await this.#answer(line);
      socket.write(`${JSON.stringify(answer)}\n`);
    }
  }

  async #answer(line: string): Promise<ControlAnswer> {
    try {
      return { ok: true, ...(await this.#obey(parseRequest(line))) };
    } catch (error) {
      if (error instanceof KloakError) return refusal(error.code, error.message);
      return refusal("unexpected", error instanceof Error ? error.message : String(error));
    }
  }

  async #obey(request: v.InferOutput<typeof requestSchema>): Promise<Record<string, unknown>> {
    const sink = this.#sink;
    if (sink === undefined) throw new KloakError("not-ready", "the agent is not ready");
    switch (request.do) {
      case "add-workload": {
        const { id, netns, interface: name, process, command = id } = request;
        await sink.workload({ id, netns, interface: name, process, about: { kind: "run", pid: null, command } });
        return {};
      }
      case "remove-workload":
        sink.workloadGone(request.id);
        return {};
      case "bind": {
        const { do: _, name, value, workloads, ca = [], placeholder: given, ...rest } = request;
        const secret = new SecretValue(value);
        const inUrl = isPercentEncoded(parseSlots(rest.in ?? []));
        const placeholder = given ?? makePlaceholder(secret, { prefix: rest.prefix, inUrl, object: `secret ${name}` });
        sink.secret({ id: name, name, value: secret, placeholder, settings: rest, roots: ca, workloads });
        return { placeholder };
      }
      case "unbind":
        sink.secretGone(request.name);
        return {};
      case "status":
        return this.#options.status();
      case "hand-over":
        await this.#options.handOver();
    }
    return {};
  }
}

/** @throws KloakError; a message never has the text of a request, which may hold a secret */
function parseRequest(line: string): v.InferOutput<typeof requestSchema> {
  let data: unknown;
  try {
    data = JSON.parse(line);
  } catch {
    throw new KloakError("request-invalid", "a request is a line of JSON");
  }
  const request = v.safeParse(requestSchema, data);
  if (request.success) return request.output;
  const where = v.getDotPath(request.issues[0]) ?? "do";
  throw new KloakError(
    "request-invalid",
    `${where} is missing, unknown or of another type; \`kloak agent --help\` lists the requests`,
  );
}

function refusal(code: string, error: string): ControlAnswer {
  return { error, code };
}

async function listen(server: Server, path: string): Promise<void> {
  server.listen(path);
  await once(server, "listening");
}

/** Asks the agent that listens at `path`. @throws KloakError `no-agent` if there is none, or what it answers */
export async function askAgent(
  path: string,
  request: ControlRequest,
  deadlineMs = 10_000,
): Promise<Record<string, unknown>> {
  const socket = connect(path);
  const signal = AbortSignal.timeout(deadlineMs);
  try {
    await once(socket, "connect", { signal });
    socket.write(`${JSON.stringify(request)}\n`);
    const lines = createInterface({ input: socket });
    const [line]: unknown[] = await once(lines, "line", { signal });
    const answer = JSON.parse(String(line)) as ControlAnswer;
    if (!("ok" in answer)) throw new KloakError(answer.code, answer.error);
    return answer;
  } catch (cause) {
    if (cause instanceof KloakError) throw cause;
    throw new KloakError("no-agent", `No agent answers at ${path}: is \`kloak agent\` running?`, { cause });
  } finally {
    socket.destroy();
  }
}
