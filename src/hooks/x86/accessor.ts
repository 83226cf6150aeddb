import { decode } from "./decode.ts";

export interface Field {
  /** Bytes from the start of the struct that the first argument points to. */
  readonly offset: number;
  readonly bytes: 4 | 8;
}

/**
 * Which field a one-line accessor `return p->field` reads: follows its code for a `p` that is not NULL. Undefined if it
 * does anything else.
 */
export function fieldRead(code: Buffer): Field | undefined {
  let field: Field | undefined;
  let at = 0;
  for (let count = 0; count < 16 && at >= 0; count++) {
    const hex = code.subarray(at, at + 7).toString("hex");
    const load = /^(48)?8b(07|47(..)|87(........))/.exec(hex);
    if (load !== null) {
      const [bytes, wide, , short, long] = load;
      const offset =
        short !== undefined
          ? Buffer.from(short, "hex").readInt8(0)
          : long === undefined
            ? 0
            : Buffer.from(long, "hex").readInt32LE(0);
      if (field !== undefined) return undefined;
      field = { offset, bytes: wide === undefined ? 4 : 8 };
      at += bytes.length / 2;
      continue;
    }
    const step = decode(code, at);
    if (step === undefined) return undefined;
    const own = code.subarray(at, at + step.length).toString("hex");
    at += step.length;
    switch (true) {
      case step.kind === "return":
        return field;
      // The argument is not NULL: je (of test %rdi,%rdi, the only test allowed) falls through, jne goes.
      case step.text === "jne" || step.kind === "jump":
        at += (step.target ?? 0) - step.length;
        break;
      case step.text === "je" || step.kind === "nop" || step.text === "endbr64" || step.kind === "push":
      case own === "4885ff" || own === "4889e5" || own === "5d" || own === "c9":
        break;
      // Before the load it is the answer for NULL; after it, it would be the answer for all.
      case own === "31c0" && field === undefined:
        break;
      // -fzero-call-used-regs: clears argument registers, of no consequence once the field is read.
      case field !== undefined && /^(31(d2|c9|f6|ff)|4531(c0|c9|d2|db))$/.test(own):
        break;
      default:
        return undefined;
    }
  }
  return undefined;
}

/** What `return constant` returns: `mov $imm32,%eax; ret`. */
export function constantReturned(code: Buffer): number | undefined {
  const match = /^(f30f1efa)?(554889e5)?b8(........)(5d)?(c3|31ff)/.exec(code.subarray(0, 20).toString("hex"));
  return match?.[3] === undefined ? undefined : Buffer.from(match[3], "hex").readUInt32LE(0);
}
