/* Whether the code of a Go function begins as that of one with these arguments must, and where to listen to it. */
import { decode } from "../x86/decode.ts";
import type { ProbePoint } from "../x86/prologue.ts";

/** Instructions of the check whether the goroutine's stack has room, and then of the frame and the arguments. */
const checkMax = 6;
const bodyMax = 24;

/**
 * The branch by which the function asks for more stack: the first instruction that the kernel emulates, before the
 * stack pointer moves, on the way of every call.
 *
 * @param argumentsAt offsets from the stack pointer at the entry that the function must read before anything else
 * @returns or why not
 */
export function choosePoint(code: Buffer, argumentsAt: readonly number[]): ProbePoint | string {
  let at = 0;
  for (let count = 0; count < checkMax; count++) {
    const found = decode(code, at);
    if (found === undefined) return `instruction at +${at} is not understood`;
    if (found.kind === "branch") {
      if (found.text !== "jbe" || found.target === undefined || at + found.target <= at) {
        return `${found.text} at +${at} is not the check of the stack`;
      }
      const unread = argumentsUnread(code, at + found.length, argumentsAt);
      if (unread.length > 0) return `its arguments at ${unread.map((offset) => `+${offset}`).join(", ")} are not read`;
      const reason = "the check of the stack, before the stack pointer moves";
      return { offset: at, instruction: found.text, cost: "emulated", reason };
    }
    if (found.kind !== "plain" || found.stores !== undefined || found.writes === stackPointer) break;
    at += found.length;
  }
  return `it does not begin with the check of the stack`;
}

const stackPointer = 4;

/** Follows the straight line after the check: how far the stack pointer moves, and what is read relative to it. */
function argumentsUnread(code: Buffer, start: number, argumentsAt: readonly number[]): number[] {
  const unread = new Set(argumentsAt);
  let moved = 0;
  for (let at = start, count = 0; count < bodyMax && unread.size > 0; count++) {
    const found = decode(code, at);
    if (found === undefined) break;
    const bytes = code.subarray(at, at + found.length);
    if (found.kind === "push") moved += 8;
    else if (found.kind !== "plain") break;
    else if (found.writes === stackPointer) {
      if (found.text !== "sub" || bytes[0] !== 0x48) break;
      moved += bytes[1] === 0x83 ? bytes.readInt8(3) : bytes.readInt32LE(3);
    }
    const displacement = loadFromStack(bytes);
    if (displacement !== undefined) unread.delete(displacement - moved);
    at += found.length;
  }
  return [...unread];
}

/** The displacement in `mov displacement(%rsp), %register` of 64 bits. */
function loadFromStack(bytes: Buffer): number | undefined {
  const [rex = 0, opcode, modrm = 0, sib] = bytes;
  if ((rex & 0xfb) !== 0x48 || opcode !== 0x8b || (modrm & 7) !== 4 || sib !== 0x24) return undefined;
  if (modrm >> 6 === 1) return bytes.readInt8(4);
  return modrm >> 6 === 2 ? bytes.readInt32LE(4) : undefined;
}
