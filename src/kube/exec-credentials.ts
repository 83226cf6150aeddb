/* Credential plugins of a kubeconfig: a command that prints a token or a certificate (client.authentication.k8s.io). */
import { execFile } from "node:child_process";
import { isAbsolute, join } from "node:path";
import { isatty } from "node:tty";
import { promisify } from "node:util";
import * as v from "valibot";
import { KloakError } from "../errors.ts";

const text = v.optional(v.nullable(v.string()));

export const execSchema = v.object({
  apiVersion: v.picklist(["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"]),
  command: v.pipe(v.string(), v.nonEmpty()),
  args: v.optional(v.nullable(v.array(v.string()))),
  env: v.optional(v.nullable(v.array(v.object({ name: v.string(), value: v.string() })))),
  installHint: text,
  interactiveMode: text,
  provideClusterInfo: v.optional(v.nullable(v.boolean())),
});

const answerSchema = v.object({
  kind: v.literal("ExecCredential"),
  status: v.object({
    token: text,
    clientCertificateData: text,
    clientKeyData: text,
    expirationTimestamp: text,
  }),
});

export interface ExecCredentialsOptions {
  readonly exec: v.InferOutput<typeof execSchema>;
  /** Of the kubeconfig: a command with a slash is relative to it. */
  readonly folder: string;
  /** For messages. */
  readonly about: string;
  readonly server: URL;
}

interface Held {
  readonly token: string | undefined;
  readonly certificate: { readonly cert: string; readonly key: string } | undefined;
  readonly untilMs: number;
}

/** Credentials are renewed so long before they end. */
const earlyMs = 10_000;
const longestAnswer = 1024 * 1024;

export class ExecCredentials {
  readonly #options: ExecCredentialsOptions;
  #held: Promise<Held> | undefined;

  constructor(options: ExecCredentialsOptions) {
    this.#options = options;
  }

  async authorization(): Promise<string | undefined> {
    const { token } = await this.#now();
    return token === undefined ? undefined : `Bearer ${token}`;
  }

  async certificate(): Promise<Held["certificate"]> {
    return (await this.#now()).certificate;
  }

  async #now(): Promise<Held> {
    const held = await this.#held;
    if (held !== undefined && held.untilMs - earlyMs > Date.now()) return held;
    this.#held = this.#ask();
    try {
      return await this.#held;
    } catch (error) {
      this.#held = undefined;
      throw error;
    }
  }

  async #ask(): Promise<Held> {
    const { exec, folder, about, server } = this.#options;
    const spec = {
      interactive: exec.interactiveMode !== "Never" && isatty(0),
      ...(exec.provideClusterInfo === true && { cluster: { server: server.href.replace(/\/$/, "") } }),
    };
    const own = Object.fromEntries((exec.env ?? []).map(({ name, value }) => [name, value]));
    const info = JSON.stringify({ apiVersion: exec.apiVersion, kind: "ExecCredential", spec });
    const isRelative = exec.command.includes("/") && !isAbsolute(exec.command);
    const command = isRelative ? join(folder, exec.command) : exec.command;
    let output: string;
    try {
      const env = { ...process.env, ...own, KUBERNETES_EXEC_INFO: info };
      const running = promisify(execFile)(command, exec.args ?? [], { env, maxBuffer: longestAnswer });
      running.child.stderr?.pipe(process.stderr, { end: false }); // what it wants its user to do
      output = (await running).stdout;
    } catch (cause) {
      const { code } = cause as { code?: string | number };
      const hint = code === "ENOENT" && exec.installHint ? `\n${exec.installHint}` : "";
      const why = code === "ENOENT" ? "is not found: install it" : `has failed (${String(code)}): it says why above`;
      throw new KloakError("exec-credential", `${about}: credential plugin ${command} ${why}${hint}`, { cause });
    }
    return this.#read(output, command);
  }

  #read(output: string, command: string): Held {
    try {
      const { status } = v.parse(answerSchema, JSON.parse(output));
      const { token, clientCertificateData: cert, clientKeyData: key, expirationTimestamp: end } = status;
      const untilMs = end === undefined || end === null ? Infinity : Date.parse(end);
      if (!token && !(cert && key)) throw new TypeError("it has neither token nor certificate");
      return { token: token || undefined, certificate: cert && key ? { cert, key } : undefined, untilMs };
    } catch (cause) {
      // Not what it printed, which may have a token in it.
      const message = `${this.#options.about}: credential plugin ${command} prints no ExecCredential with a token or certificate`;
      throw new KloakError("exec-credential", message, { cause });
    }
  }
}
