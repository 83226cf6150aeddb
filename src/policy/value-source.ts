import { Buffer } from "node:buffer";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { open } from "node:fs/promises";
import { resolve } from "node:path";
import { KloakError } from "../errors.ts";
import { SecretValue } from "../placeholder/secret-value.ts";
import { withoutLineEnd } from "./line-end.ts";
import { PolicyError, quoted } from "./policy-error.ts";

/** Where the value of a secret comes from. */
export type ValueSource =
  | { readonly kind: "env"; readonly name: string }
  | { readonly kind: "file"; readonly path: string }
  /** Program and arguments, without a shell. */
  | { readonly kind: "command"; readonly command: readonly string[] };

export interface ReadOptions {
  /** What the value is, for the error's reader: `secret OPENAI_API_KEY (kloak.yaml:3)`. */
  readonly object: string;
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Relative paths start here, and commands run here. */
  readonly directory?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** More than any value may have, so that what is too long is called too long. */
const mostBytes = 16_384;

/** Parses `env:VAR`, `file:PATH` or `cmd:COMMAND` (a line for `sh -c`). */
export function parseValueSource(text: string): ValueSource {
  const colon = text.indexOf(":");
  const rest = text.slice(colon + 1);
  if (colon === -1 || rest.trim() === "") throw unknownSource(text);
  switch (text.slice(0, colon)) {
    case "env":
      return { kind: "env", name: rest };
    case "file":
      return { kind: "file", path: rest };
    case "cmd":
      return { kind: "command", command: ["sh", "-c", rest] };
    default:
      throw unknownSource(text);
  }
}

/**
 * Reads a value. One line end at the end of a file or of a command's output is not part of it.
 * @throws KloakError that names the object, the source and the next step; never the value.
 */
export async function readValue(source: ValueSource, options: ReadOptions): Promise<SecretValue> {
  const bytes = await readBytes(source, options);
  if (bytes.length === 0) throw failure(source, options, "source-empty", "is empty", "put the value there");
  if (bytes.length > mostBytes) {
    throw failure(source, options, "value-too-long", `gives more than ${mostBytes} bytes`, "name the key alone");
  }
  return new SecretValue(bytes);
}

/** How a source is named in messages. */
export function sourceText(source: ValueSource): string {
  if (source.kind === "env") return `environment variable ${source.name}`;
  if (source.kind === "file") return `file ${source.path}`;
  return `command ${quoted(source.command[0] ?? "")}`;
}

async function readBytes(source: ValueSource, options: ReadOptions): Promise<Buffer> {
  if (source.kind === "file") return withoutLineEnd(await readStart(source, options));
  if (source.kind === "command") return withoutLineEnd(await outputOf(source, options));
  const value = (options.env ?? process.env)[source.name];
  if (value !== undefined) return Buffer.from(value);
  throw failure(source, options, "source-missing", "is not set", "set it, or name another source");
}

/** Reads at most one byte more than is wanted: the file may be a pipe or /dev/zero. */
async function readStart(source: ValueSource & { kind: "file" }, options: ReadOptions): Promise<Buffer> {
  const path = resolve(options.directory ?? ".", source.path);
  try {
    await using file = await open(path);
    const buffer = Buffer.alloc(mostBytes + 1);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return buffer.subarray(0, length);
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code ?? "";
    const problem = readProblems[why] ?? `cannot be read (${why})`;
    throw failure(source, options, "source-missing", problem, "check path and permissions", cause);
  }
}

const readProblems: Readonly<Record<string, string>> = {
  ENOENT: "does not exist",
  EACCES: "may not be read",
  EISDIR: "is a directory",
};

/** Standard error stays the terminal's, so that a password manager can say what it waits for. */
async function outputOf(source: ValueSource & { kind: "command" }, options: ReadOptions): Promise<Buffer> {
  const [program = "", ...args] = source.command;
  const child = spawn(program, args, {
    cwd: options.directory,
    env: { ...(options.env ?? process.env) },
    signal: options.signal,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const parts: Buffer[] = [];
  let length = 0;
  child.stdout.on("data", (part: Buffer) => {
    length += part.length;
    if (length <= mostBytes + 1) parts.push(part);
    else child.kill();
  });
  const [status, signal] = await once(child, "close").catch((cause: unknown) => {
    const why = (cause as NodeJS.ErrnoException).code === "ENOENT" ? "was not found" : "could not be run";
    throw failure(source, options, "source-failed", why, "check its name and PATH", cause);
  });
  if (length > mostBytes) return Buffer.alloc(mostBytes + 1);
  if (status !== 0) {
    const how = signal === null ? `exited with status ${status}` : `was ended by ${signal}`;
    throw failure(source, options, "source-failed", how, "run it by hand to see why");
  }
  return Buffer.concat(parts);
}

function failure(
  source: ValueSource,
  { object }: ReadOptions,
  code: string,
  problem: string,
  remedy: string,
  cause?: unknown,
): KloakError {
  return new KloakError(code, `${object}: ${sourceText(source)} ${problem}; ${remedy}`, { cause });
}

function unknownSource(text: string): PolicyError {
  // Not quoted: what stands where a source belongs may be the secret itself.
  const kind = /^[a-z]{1,12}:/i.exec(text)?.[0];
  const problem = kind === undefined ? "the source has no kind" : `source kind ${quoted(kind)} is unknown or empty`;
  return new PolicyError("source-invalid", problem, "write env:VAR, file:PATH or cmd:COMMAND");
}
