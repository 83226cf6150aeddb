import type { Field } from "./accessor.ts";
import { decode, register } from "./decode.ts";

/** System V x86-64 psABI 3.2.3: integer arguments, in order. */
const argumentRegisters = [register.rdi, register.rsi, register.rdx, register.rcx, register.r8, register.r9] as const;

export interface ProbePoint {
  /** Bytes from the function's entry; always the start of an instruction. */
  readonly offset: number;
  readonly instruction: string;
  /** What a hit costs: about 0.7 us emulated, 1-2 us single-stepped, 10 us and more single-stepped in a guest. */
  readonly cost: "emulated" | "emulated-recent" | "single-step" | "breakpoint";
  readonly reason: string;
}

const instructionsMax = 32;

/**
 * The first instruction of a function that every caller reaches, that the kernel emulates instead of single-stepping,
 * and before which none of the first `argumentCount` argument registers has changed; nor the stack pointer, where more
 * arguments than registers are read from the stack. The entry if there is none.
 *
 * @param code the function's bytes from its entry on
 * @param complete whether `code` is the whole function: only then it is known that nothing jumps back to the instruction
 */
export function choosePoint(code: Buffer, argumentCount: number, complete: boolean): ProbePoint {
  const kept: readonly number[] = argumentRegisters.slice(0, argumentCount);
  const onStack = argumentCount > argumentRegisters.length;
  const entry = decode(code, 0);
  const fallback = (reason: string): ProbePoint => ({
    offset: 0,
    instruction: entry?.text ?? "unknown",
    cost: entry?.emulated === "always" ? "emulated" : entry?.emulated === "recent" ? "emulated-recent" : "single-step",
    reason,
  });
  let recent: ProbePoint | undefined;
  let frame = false;
  const passed: number[] = [];
  let at = 0;
  let why = `none of the first ${instructionsMax} instructions is emulated`;
  for (let count = 0; count < instructionsMax; count++) {
    const found = decode(code, at);
    if (found === undefined) {
      why = `instruction at +${at} is not understood`;
      break;
    }
    if (at > 0) passed.push(at);
    const point = { offset: at, instruction: found.text };
    if (found.emulated === "always") {
      if (at > 0 && !complete) return fallback("the function's end is not known, so something may jump back into it");
      if (at > 0 && jumpedTo(code, passed)) return fallback(`something may jump back to +${at} or before`);
      const reason = at === 0 ? "the entry is emulated" : "first emulated instruction with the arguments intact";
      return { ...point, cost: "emulated", reason };
    }
    if (found.emulated === "recent" && recent === undefined && complete && !jumpedTo(code, passed)) {
      recent = { ...point, cost: "emulated-recent", reason: "a nop that Linux 6.18 and later emulate" };
    }
    if (found.kind !== "plain" && found.kind !== "push" && found.kind !== "nop") {
      why = `${found.text} at +${at} leaves the straight line`;
      break;
    }
    if (found.writes !== undefined && kept.includes(found.writes)) {
      why = `${found.text} at +${at} changes an argument register`;
      break;
    }
    if (onStack && (found.writes === register.rsp || /^(push|pop|leave)/.test(found.text))) {
      why = `${found.text} at +${at} moves the stack pointer`;
      break;
    }
    // What lies in the function's own frame is no argument; other memory may be what an argument points to.
    const ownFrame = found.stores === register.rsp || (found.stores === register.rbp && frame);
    if (found.stores !== undefined && !ownFrame) {
      why = `${found.text} at +${at} changes memory`;
      break;
    }
    if (found.writes === register.rbp) frame = code.subarray(at, at + found.length).toString("hex") === "4889e5";
    at += found.length;
  }
  return recent ?? fallback(why);
}

/**
 * Where a function goes on for those only whose struct, its first argument, has something else than 0 in `field`: after
 * `mov field(%rdi),%eax; test %eax,%eax; je`, with all other arguments intact. Undefined if it does not begin like that, or
 * if what follows is not emulated.
 */
export function choosePointIf(code: Buffer, field: Field, complete: boolean): ProbePoint | undefined {
  const start = /^(?:f30f1efa)?8b(?:47(..)|87(........))85c074(..)/.exec(code.subarray(0, 32).toString("hex"));
  if (start === null || !complete || field.bytes !== 4) return undefined;
  const [bytes, short, long, otherwise = ""] = start;
  const offset =
    short === undefined ? Buffer.from(long ?? "", "hex").readInt32LE(0) : Buffer.from(short, "hex").readInt8(0);
  const at = bytes.length / 2;
  const found = decode(code, at);
  if (offset !== field.offset || found?.emulated !== "always") return undefined;
  // The others go on behind it, and nothing comes back.
  if (Buffer.from(otherwise, "hex").readInt8(0) < found.length || jumpedTo(code, [at])) return undefined;
  return { offset: at, instruction: found.text, cost: "emulated", reason: `reached only if +${offset} is not 0` };
}

/**
 * Whether any byte position after the straight line, read as a relative jump, leads to one of `places`, the instructions
 * on it. Errs on the side of yes.
 */
function jumpedTo(code: Buffer, places: readonly number[]): boolean {
  const inside = (target: number): boolean => places.includes(target);
  for (let at = places.at(-1) ?? 0; at < code.length; at++) {
    const opcode = code[at] ?? 0;
    if (
      (opcode === 0xeb || (opcode & 0xf0) === 0x70) &&
      at + 2 <= code.length &&
      inside(at + 2 + code.readInt8(at + 1))
    ) {
      return true;
    }
    const near = opcode === 0xe9 || (opcode === 0x0f && ((code[at + 1] ?? 0) & 0xf0) === 0x80);
    const length = opcode === 0xe9 ? 5 : 6;
    if (near && at + length <= code.length && inside(at + length + code.readInt32LE(at + length - 4))) return true;
  }
  return false;
}
