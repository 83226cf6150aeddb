import type { Machine } from "./elf/image.ts";
import type { ProbePoint } from "./x86/prologue.ts";

/** One uprobe to set: `program` at `fileOffset` of the file. */
export interface Hook {
  readonly program: string;
  readonly symbol: string;
  /** Of the function, as the file's own headers count. */
  readonly address: number;
  /** Where the breakpoint goes: the chosen instruction's place in the file. */
  readonly fileOffset: number;
  readonly point: ProbePoint;
  /** False: the stack works without it, so a data plane that has no such program leaves it out. */
  readonly required: boolean;
}

export type StackName = "openssl" | "go" | "gnutls" | "java" | "boringssl" | "ring";

export interface StackPlan {
  readonly stack: StackName;
  /** As the library numbers itself, "3.5.7"; undefined where it does not say so in a way that can be read. */
  readonly version: string | undefined;
  readonly machine: Machine;
  readonly hooks: readonly Hook[];
  /** Struct offsets the programs rely on, as read from the library's own accessors. */
  readonly offsets: Readonly<Record<string, number>>;
  /** Whether the TLS protocol itself is in the file too, not only its ciphers. */
  readonly includesProtocol: boolean;
}

/** A stack that is there, but must not be hooked: what was expected, what was found. */
export interface StackRefusal {
  readonly stack: StackName;
  readonly reason: string;
}
