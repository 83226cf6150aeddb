/**
 * Lengths and effects of the few x86-64 instructions that compilers put at the start of a function (Intel SDM volume 2).
 * What is not listed is not understood, and who asks stops there: a wrong length would put a breakpoint into the middle
 * of an instruction.
 */

/** Register numbers as encoded. */
export const register = { rax: 0, rcx: 1, rdx: 2, rbx: 3, rsp: 4, rbp: 5, rsi: 6, rdi: 7, r8: 8, r9: 9 } as const;

export type Kind = "push" | "nop" | "jump" | "branch" | "call" | "return" | "plain";

export interface Instruction {
  readonly kind: Kind;
  readonly length: number;
  readonly text: string;
  /** The general register that it changes, besides rsp. */
  readonly writes: number | undefined;
  /** Base register of memory that it changes. */
  readonly stores: number | undefined;
  /** Jump, branch, call: destination relative to the instruction's start. */
  readonly target: number | undefined;
  /** Can Linux emulate it in a uprobe: yes; since 6.18 (multi-byte nops); or only single-step it. */
  readonly emulated: "always" | "recent" | "never";
}

interface Operand {
  readonly length: number;
  readonly register: number;
  readonly direct: boolean;
  /** The register itself if direct, else the base of the address; -1: no base. */
  readonly base: number;
}

const byteSize = 1;
const longSize = 4;

function operand(code: Buffer, at: number, rex: number): Operand | undefined {
  const modrm = code[at];
  if (modrm === undefined) return undefined;
  const mode = modrm >> 6;
  const low = modrm & 7;
  const parsed = { register: ((modrm >> 3) & 7) | ((rex & 4) << 1), direct: mode === 3 };
  if (mode === 3) return { ...parsed, length: 1, base: low | ((rex & 1) << 3) };
  let length = 1;
  let base = low | ((rex & 1) << 3);
  if (low === 4) {
    const sib = code[at + 1];
    if (sib === undefined) return undefined;
    length += 1;
    base = (sib & 7) | ((rex & 1) << 3);
    if ((sib & 7) === 5 && mode === 0) return { ...parsed, length: length + longSize, base: -1 };
  } else if (low === 5 && mode === 0) {
    return { ...parsed, length: length + longSize, base: -1 };
  }
  return { ...parsed, length: length + (mode === 1 ? byteSize : mode === 2 ? longSize : 0), base };
}

/** Kernel `x86_nops`, arch/x86/include/asm/nops.h: only these forms are emulated. */
const kernelNops = ["0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000", "0f1f840000000000"];

function make(kind: Kind, length: number, text: string, more: Partial<Instruction> = {}): Instruction {
  return { kind, length, text, writes: undefined, stores: undefined, target: undefined, emulated: "never", ...more };
}

/** Arithmetic that reads both operands and writes one: opcode of the form with the register as source. */
const arithmetic: Readonly<Record<number, string>> = { 0x01: "add", 0x09: "or", 0x21: "and", 0x29: "sub", 0x31: "xor" };
const immediateGroup = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"];

/** The instruction at `at`, or undefined if it is not understood or cut off. */
export function decode(code: Buffer, at: number): Instruction | undefined {
  const found = decodeBounded(code.subarray(at, at + 15));
  return found !== undefined && at + found.length <= code.length ? found : undefined;
}

function decodeBounded(code: Buffer): Instruction | undefined {
  if (code.length >= 4 && code.readUInt32BE(0) === 0xf30f1efa) return make("plain", 4, "endbr64");
  let at = 0;
  let wide = false;
  let prefixes = 0;
  for (; code[at] === 0x66 || code[at] === 0x64 || code[at] === 0x2e; at++, prefixes++) wide ||= code[at] === 0x66;
  let rex = 0;
  if (((code[at] ?? 0) & 0xf0) === 0x40) {
    rex = code[at] ?? 0;
    at += 1;
  }
  const opcode = code[at];
  if (opcode === undefined) return undefined;
  at += 1;

  if (opcode === 0x90 && (rex & 1) === 0) return make("nop", at, "nop", { emulated: "always" });
  if (opcode === 0x0f) return decodeTwoBytes(code, at, rex, prefixes, wide);
  if (opcode >= 0x50 && opcode <= 0x57) {
    // arch/x86/kernel/uprobes.c, push_setup_xol_ops: no prefix, or exactly 41.
    const emulated = prefixes === 0 && (rex === 0 || rex === 0x41) ? "always" : "never";
    return make("push", at, "push", { emulated });
  }
  // The same file, branch_setup_xol_ops: 16-bit forms are not emulated, and prefixes on jumps mean other things elsewhere.
  if (prefixes === 0 && rex === 0) {
    const jump = decodeJump(code, at, opcode);
    if (jump !== undefined) return jump;
    if (opcode === 0xc3) return make("return", at, "ret");
    if (opcode === 0xc9) return make("plain", at, "leave", { writes: register.rbp });
    if (opcode === 0x6a) return make("plain", at + 1, "push imm8");
    if (opcode === 0x68) return make("plain", at + 4, "push imm32");
  }
  if (opcode >= 0x58 && opcode <= 0x5f) {
    return make("plain", at, "pop", { writes: (opcode & 7) | ((rex & 1) << 3) });
  }
  if (wide) return undefined;
  if (opcode >= 0xb8 && opcode <= 0xbf) {
    return make("plain", at + ((rex & 8) !== 0 ? 8 : 4), "mov imm", { writes: (opcode & 7) | ((rex & 1) << 3) });
  }
  return decodeOperands(code, at, opcode, rex);
}

function decodeJump(code: Buffer, at: number, opcode: number): Instruction | undefined {
  const short = opcode === 0xeb || (opcode & 0xf0) === 0x70;
  if (!short && opcode !== 0xe9 && opcode !== 0xe8) return undefined;
  const length = at + (short ? byteSize : longSize);
  if (code.length < length) return undefined;
  const target = length + (short ? code.readInt8(at) : code.readInt32LE(at));
  if (opcode === 0xe8) return make("call", length, "call", { target, emulated: "always" });
  if (opcode === 0xe9 || opcode === 0xeb) return make("jump", length, "jmp", { target, emulated: "always" });
  return make("branch", length, condition(opcode), { target, emulated: "always" });
}

function condition(opcode: number): string {
  const names = [
    "jo",
    "jno",
    "jb",
    "jae",
    "je",
    "jne",
    "jbe",
    "ja",
    "js",
    "jns",
    "jp",
    "jnp",
    "jl",
    "jge",
    "jle",
    "jg",
  ];
  return names[opcode & 15] ?? "jcc";
}

function decodeTwoBytes(
  code: Buffer,
  at: number,
  rex: number,
  prefixes: number,
  wide: boolean,
): Instruction | undefined {
  const opcode = code[at];
  if (opcode === undefined) return undefined;
  at += 1;
  if ((opcode & 0xf0) === 0x80) {
    if (prefixes > 0 || rex !== 0 || code.length < at + longSize) return undefined;
    const target = at + longSize + code.readInt32LE(at);
    return make("branch", at + longSize, condition(opcode), { target, emulated: "always" });
  }
  const rm = operand(code, at, rex);
  if (rm === undefined) return undefined;
  const length = at + rm.length;
  if (opcode === 0x1f && rm.register === 0) {
    const recent = kernelNops.includes(code.subarray(0, length).toString("hex"));
    return make("nop", length, "nopl", { emulated: recent ? "recent" : "never" });
  }
  // movzx, movsx
  if (!wide && (opcode === 0xb6 || opcode === 0xb7 || opcode === 0xbe || opcode === 0xbf)) {
    return make("plain", length, "movx", { writes: rm.register });
  }
  // Clearing a vector register: pxor, xorps.
  if (rm.direct && ((wide && opcode === 0xef) || (!wide && opcode === 0x57))) return make("plain", length, "pxor");
  return undefined;
}

function decodeOperands(code: Buffer, at: number, opcode: number, rex: number): Instruction | undefined {
  const rm = operand(code, at, rex);
  if (rm === undefined) return undefined;
  const length = at + rm.length;
  const intoRm = (text: string, extra = 0): Instruction =>
    make("plain", length + extra, text, rm.direct ? { writes: rm.base } : { stores: rm.base });
  const store = arithmetic[opcode];
  if (store !== undefined) return intoRm(store);
  const load = arithmetic[opcode - 2];
  if (load !== undefined) return make("plain", length, load, { writes: rm.register });
  switch (opcode) {
    case 0x89:
      return intoRm("mov");
    case 0x8b:
      return make("plain", length, "mov", { writes: rm.register });
    case 0x63:
      return make("plain", length, "movslq", { writes: rm.register });
    case 0x8d:
      return rm.direct ? undefined : make("plain", length, "lea", { writes: rm.register });
    case 0x84:
    case 0x85:
      return make("plain", length, "test");
    case 0x38:
    case 0x39:
    case 0x3a:
    case 0x3b:
      return make("plain", length, "cmp");
    case 0x80:
      return (rm.register & 7) === 7 ? make("plain", length + byteSize, "cmp") : undefined;
    case 0x81:
    case 0x83: {
      const text = immediateGroup[rm.register & 7] ?? "";
      const extra = opcode === 0x83 ? byteSize : longSize;
      return text === "cmp" ? make("plain", length + extra, "cmp") : intoRm(text, extra);
    }
    case 0xf6:
      return (rm.register & 7) === 0 ? make("plain", length + byteSize, "test") : undefined;
    case 0xf7:
      return (rm.register & 7) === 0 ? make("plain", length + longSize, "test") : undefined;
    case 0xc7:
      return (rm.register & 7) === 0 ? intoRm("mov", longSize) : undefined;
    default:
      return undefined;
  }
}
