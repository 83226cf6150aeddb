/*
 * The verifier prints how much stack each function of a program takes, and refuses by what a chain of calls takes
 * together (check_max_stack_depth). The calls are read from the code.
 */

/** include/uapi/linux/bpf.h */
const CALL = 0x85;
const HELPER_LOOP = 181;
const HELPER_TAIL_CALL = 12;
const LOAD_64 = 0x18;
const PSEUDO_CALL = 1;
const PSEUDO_FUNC = 4;

/** What bpf_loop needs where the verifier makes a loop of it (optimize_bpf_loop): after the check, before it prints. */
const INLINED_LOOP_BYTES = 24;

/**
 * Bytes of the deepest chain, each function's rounded up to 32 as before 6.8 (later kernels round to 16 where they
 * compile). depths: of each function, in the order in which they stand in `code`. Throws if they are not as many.
 */
export function deepestStack(code: Buffer, depths: readonly number[]): number {
  const calls = callsIn(code);
  const starts = [...new Set([0, ...calls.map(({ to }) => to)])].toSorted((a, b) => a - b);
  if (starts.length !== depths.length)
    throw new Error(`${starts.length} functions in the code, ${depths.length} for the verifier`);
  const functionAt = (index: number): number => starts.findLastIndex((start) => start <= index);
  const loops = new Set(loopsIn(code).map(functionAt));
  const checked = depths.map((depth, which) => rounded(loops.has(which) ? depth - INLINED_LOOP_BYTES : depth));
  const callees = starts.map(() => new Set<number>());
  for (const { from, to } of calls) callees[functionAt(from)]?.add(functionAt(to));
  // No function calls itself: the verifier would refuse it.
  const deepest = (which: number): number =>
    (checked[which] ?? 0) + Math.max(0, ...[...(callees[which] ?? [])].map(deepest));
  return deepest(0);
}

const rounded = (bytes: number): number => Math.ceil(Math.max(bytes, 1) / 32) * 32;

interface Instruction {
  readonly index: number;
  readonly opcode: number;
  readonly source: number;
  readonly value: number;
}

function instructions(code: Buffer): Instruction[] {
  const all: Instruction[] = [];
  for (let index = 0; index * 8 < code.length; index++) {
    const opcode = code.readUInt8(index * 8);
    all.push({ index, opcode, source: code.readUInt8(index * 8 + 1) >> 4, value: code.readInt32LE(index * 8 + 4) });
    if (opcode === LOAD_64) index++; // two instructions long
  }
  return all;
}

/** By number of instruction. A callback counts as called where its address is taken. */
function callsIn(code: Buffer): { readonly from: number; readonly to: number }[] {
  return instructions(code)
    .filter(({ opcode, source }) =>
      opcode === CALL ? source === PSEUDO_CALL : opcode === LOAD_64 && source === PSEUDO_FUNC,
    )
    .map(({ index, value }) => ({ from: index, to: index + 1 + value }));
}

function loopsIn(code: Buffer): number[] {
  return helperCalls(code, HELPER_LOOP).map(({ index }) => index);
}

function helperCalls(code: Buffer, helper: number): Instruction[] {
  return instructions(code).filter(({ opcode, source, value }) => opcode === CALL && source === 0 && value === helper);
}

/** include/linux/bpf.h: BPF_PRIV_STACK_MIN_SIZE */
const PRIVATE_STACK_LEAST = 64;

/** Whether the verifier may give a program a private stack (bpf/cipher/stack.h): not one that has a tail call. */
export function mayHavePrivateStack(code: Buffer, depths: readonly number[]): boolean {
  return depths.some((depth) => depth >= PRIVATE_STACK_LEAST) && helperCalls(code, HELPER_TAIL_CALL).length === 0;
}
